// Package pack encodes a batch of sectors as one immutable object and decodes such objects again.
//
// # Format, version 1
//
// Integers are little endian; a uvarint is that of encoding/binary in its shortest form.
//
//	0          16         32                          size-64-IndexLen   size-64       size
//	+----------+----------+---------+---------+- ... -+------------------+-------------+
//	| header   | random   | frame 0 | frame 1 |       | index            | trailer     |
//	+----------+----------+---------+---------+- ... -+------------------+-------------+
//
//	header    magic "glidepak" | version u32 | zero u32
//	random    16 bytes from the operating system [a name that was deleted never comes back, so a late delete is harmless]
//	frame     Len bytes: Raw bytes of guest data as they are (CodecRaw) or one zstd frame (CodecZstd); frames lie back to back
//	index     version u8 | log2(sector size) u8 | #frames | #extents | frames | extents        (counts are uvarints)
//	            frame:   codec u8 | Len uvarint | Raw in sectors uvarint | BLAKE3 of the stored bytes, 16 bytes
//	            extent:  sectors since the end of the extent before it, uvarint | (sectors << 1 | zero) uvarint
//	trailer   magic "glideend" | version u32 | sector size u32 | IndexLen u32 | zero u32 | IndexSum 16 | First u64 | End u64 | Sectors u64
//
// An extent's place needs no bytes: data extents fill the frames in order, without gaps, and none crosses a frame's end. So a
// scattered 4 KiB write costs about four bytes of index and its share of a frame entry: 0.2 % in all.
//
// The object is named by the BLAKE3-256 of all its bytes but the frames, which the index sums: each byte is hashed once, the name
// covers all of them, and a damaged frame is known from its neighbours. A Ref carries what a reader needs to fetch and verify the index with one
// ranged GET; the index carries what it needs to fetch and verify one frame with one more. Nothing is trusted that was not summed.
//
// # Frames
//
// Long runs are cut at multiples of MaxFrame of the disk's address, so that a region written again and again has the same frame
// borders in every pack. Pieces shorter than MaxScattered share a frame with their neighbours in address order, up to MaxScattered:
// a reader of one sector fetches at most that, and neighbours compress better together. All-zero sectors have no bytes at all.
//
// The package holds no locks. Encoders and decoders are shared by the process and made before main runs [testing/synctest forbids
// a channel made inside a bubble to be used outside of it].
package pack

import "errors"

var (
	// ErrDamaged: the bytes are not what their sum or the format says.
	ErrDamaged = errors.New("damaged object")
	// ErrVersion: the bytes were written by a newer program; the message names the version or the codec.
	ErrVersion = errors.New("unknown format version")
)

const version = 1

// Extent maps sectors [First, First+Count) to bytes [Off, Off+Count*SectorSize) of the uncompressed frame, or to zeros when Frame is ZeroFrame.
type Extent struct {
	First uint64
	Count uint64 // data extents fit a frame; zero extents may be longer than 2^32 sectors
	Frame uint32
	Off   uint32
}

// End is one past the extent's last sector.
func (e Extent) End() uint64 { return e.First + e.Count }

// ZeroFrame marks an extent without data.
const ZeroFrame = ^uint32(0)

// Frame is a unit of compression, checksum and fetch: bytes [Off, Off+Len) of the object, Raw bytes uncompressed.
type Frame struct {
	Off, Len, Raw uint32
	Codec         uint8 // CodecRaw, CodecZstd; values from 128 up are kept for encrypted twins
	Sum           [16]byte
}

const (
	CodecRaw  = 0
	CodecZstd = 1

	MaxFrame     = 128 << 10 // raw bytes of a frame of one long run, aligned to its address
	MaxScattered = 32 << 10  // raw bytes of a frame of scattered sectors
	MaxPack      = 32 << 20  // bytes of an object, as a rule: the batcher keeps it (see Builder.Size), the format allows 4 GiB

	headerLen  = 32 // with the random bytes
	randomAt   = 16
	trailerLen = 64

	minSector = 512
	maxSector = 4096
)

// Index is a pack's decoded index: extents sorted by First and not overlapping. Immutable once built or decoded.
type Index struct {
	SectorSize uint32
	Extents    []Extent
	Frames     []Frame
}

// Pack is an encoded pack, decoded and compared with its input before it is returned (verify before publish).
type Pack struct {
	Ref   Ref
	Body  []byte // see Builder.Finish for how long it is valid
	Index *Index
}
