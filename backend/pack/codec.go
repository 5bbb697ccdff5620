package pack

import (
	"fmt"
	"runtime"

	"github.com/klauspost/compress/zstd"
)

// The coders live as long as the process; a coder has room for a bounded number of callers and the others wait for one of them.
// Warmed up here, because they make their channels at first use.
var (
	encoder = newEncoder(max(1, runtime.NumCPU()/2))
	// The decoder serves guests too, so it has a place for every CPU.
	zdecoder = newDecoder(runtime.NumCPU())
)

func newEncoder(n int) *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(n), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(MaxFrame), zstd.WithEncoderCRC(false))
	if err != nil {
		panic(err) // the options are constants
	}
	e.EncodeAll([]byte{0}, nil)
	return e
}

func newDecoder(n int) *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(n), zstd.WithDecoderMaxMemory(MaxFrame), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
}

// encode compresses raw into scratch and returns what to store: raw itself unless it shrinks by 5 % at least [decoding costs more
// than the few bytes saved].
func encode(raw, scratch []byte) (codec uint8, stored []byte) {
	z := encoder.EncodeAll(raw, scratch[:0])
	if len(z) > len(raw)-len(raw)/20 {
		return CodecRaw, raw
	}
	return CodecZstd, z
}

// DecodeFrame verifies the stored bytes [Off, Off+Len) of frame i and returns its Raw bytes: in dst's memory when its capacity
// suffices, never in stored's. Errors are ErrDamaged, or ErrVersion for a codec this program does not know.
func (ix *Index) DecodeFrame(i uint32, stored, dst []byte) ([]byte, error) {
	f := ix.Frames[i]
	if uint64(len(stored)) != uint64(f.Len) || sum16(stored) != f.Sum {
		return nil, fmt.Errorf("frame %d: %w: it does not match its sum", i, ErrDamaged)
	}
	raw, err := f.decode(stored, dst)
	if err != nil {
		return nil, fmt.Errorf("frame %d: %w", i, err)
	}
	return raw, nil
}

// decode is DecodeFrame without the sum.
func (f *Frame) decode(stored, dst []byte) ([]byte, error) {
	if uint64(cap(dst)) < uint64(f.Raw) {
		dst = make([]byte, f.Raw)
	}
	dst = dst[:0:f.Raw]
	switch f.Codec {
	case CodecRaw:
		dst = append(dst, stored[:min(f.Len, f.Raw)]...)
	case CodecZstd:
		var err error
		if dst, err = zdecoder.DecodeAll(stored, dst); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	default:
		return nil, fmt.Errorf("%w: codec %d", ErrVersion, f.Codec)
	}
	if uint64(len(dst)) != uint64(f.Raw) || f.Codec == CodecRaw && f.Len != f.Raw {
		return nil, fmt.Errorf("%w: %d bytes instead of %d", ErrDamaged, len(dst), f.Raw)
	}
	return dst, nil
}
