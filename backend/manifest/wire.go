package manifest

import (
	"encoding/binary"
	"fmt"
	"time"

	"glidefs-appliance/backend/pack"
)

// reader consumes b; the first thing that is wrong sets bad, after which nothing it returns means anything. What it returns shares
// b's memory.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || len(r.b) < n {
		r.bad = true
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

// fixed is take for a length that the caller then may index, bad or not.
func (r *reader) fixed(n int) []byte {
	if b := r.take(n); b != nil {
		return b
	}
	return make([]byte, n)
}

func (r *reader) byte() byte       { return r.fixed(1)[0] }
func (r *reader) u16() uint16      { return binary.LittleEndian.Uint16(r.fixed(2)) }
func (r *reader) u32() uint32      { return binary.LittleEndian.Uint32(r.fixed(4)) }
func (r *reader) u64() uint64      { return binary.LittleEndian.Uint64(r.fixed(8)) }
func (r *reader) id() [16]byte     { return [16]byte(r.fixed(16)) }
func (r *reader) hash() [32]byte   { return [32]byte(r.fixed(32)) }
func (r *reader) str() []byte      { return r.take(r.count(1)) }
func (r *reader) more() bool       { return !r.bad && len(r.b) > 0 }
func (r *reader) time() time.Time  { return fromNanos(int64(r.u64())) }
func (r *reader) expect(zero bool) { r.bad = r.bad || !zero }

// uvarint takes shortest forms only, so that one manifest has one encoding.
func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 {
		r.bad = true
		return 0
	}
	r.take(n)
	return v
}

// count takes a number of things of at least size bytes each, no more than the rest of the input can hold.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/size) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *reader) ref() pack.Ref {
	ref, rest, err := pack.ConsumeRef(r.b)
	if r.bad || err != nil {
		r.bad = true
		return pack.Ref{}
	}
	r.b = rest
	return ref
}

// head takes a magic and a version.
func (r *reader) head(magic string) error {
	if string(r.fixed(len(magic))) != magic {
		return fmt.Errorf("%w: no %q at its beginning", ErrDamaged, magic)
	}
	if v := r.u32(); v != version && !r.bad {
		return fmt.Errorf("%w: %d", ErrVersion, v)
	}
	return nil
}

func appendStr(b []byte, s []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.LittleEndian.AppendUint64(b, 0)
	}
	return binary.LittleEndian.AppendUint64(b, uint64(t.UnixNano()))
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
