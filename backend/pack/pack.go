package pack

// Hash names a pack: BLAKE3-256 of the whole object, whose first 16 bytes after the magic are random, so a deleted name never comes back.
type Hash [32]byte

// Ref is what a manifest or a map page knows of a pack: enough to fetch its index with one ranged GET and verify it.
// 96 bytes encoded at most.
type Ref struct {
	Hash     Hash
	Size     uint32   // of the object, bytes
	IndexLen uint32   // the index lies right before the trailer
	IndexSum [16]byte // BLAKE3 of the index, truncated
	First    uint64   // lowest sector the index knows
	End      uint64   // one past the highest
	Sectors  uint64   // sectors with data (not zero extents)
}

// Extent maps sectors [First, First+Count) to Raw bytes [Off, Off+Count*SectorSize) of the uncompressed frame, or to zeros when Frame is ZeroFrame.
type Extent struct {
	First uint64
	Count uint64 // data extents fit a frame; zero extents may be longer than 2^32 sectors
	Frame uint32
	Off   uint32
}

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
	MaxPack      = 32 << 20  // bytes of an object
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
	Body  []byte
	Index *Index
}
