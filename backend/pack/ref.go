package pack

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// Hash names a pack: BLAKE3-256 of header, index and trailer, and through the sums in the index of the frames; bytes 16..32 are
// random, so a deleted name never comes back.
type Hash [32]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Key is the object's key in the store.
func (h Hash) Key() string {
	s := h.String()
	return "packs/" + s[:2] + "/" + s
}

// ParseHash is the inverse of Hash.String.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if len(s) != hex.EncodedLen(len(h)) {
		return Hash{}, fmt.Errorf("parse hash %q: want %d hex digits", s, hex.EncodedLen(len(h)))
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return Hash{}, fmt.Errorf("parse hash %q: %w", s, err)
	}
	return h, nil
}

// Ref is what a manifest or a map page knows of a pack: enough to fetch its index with one ranged GET and verify it.
type Ref struct {
	Hash     Hash
	Size     uint32   // of the object, bytes
	IndexLen uint32   // the index lies right before the trailer
	IndexSum [16]byte // BLAKE3 of the index, truncated
	First    uint64   // lowest sector the index knows
	End      uint64   // one past the highest
	Sectors  uint64   // sectors with data (not zero extents)
}

// IndexRange is where the index lies in the object.
func (r Ref) IndexRange() (off, n int64) {
	return int64(r.Size) - trailerLen - int64(r.IndexLen), int64(r.IndexLen)
}

// RefLen is the length of an encoded Ref.
const RefLen = 32 + 4 + 4 + 16 + 3*8

// Append appends the encoded Ref, RefLen bytes, to b.
func (r Ref) Append(b []byte) []byte {
	b = append(b, r.Hash[:]...)
	b = binary.LittleEndian.AppendUint32(b, r.Size)
	b = binary.LittleEndian.AppendUint32(b, r.IndexLen)
	b = append(b, r.IndexSum[:]...)
	b = binary.LittleEndian.AppendUint64(b, r.First)
	b = binary.LittleEndian.AppendUint64(b, r.End)
	return binary.LittleEndian.AppendUint64(b, r.Sectors)
}

// ConsumeRef decodes a Ref from the front of b and returns the rest. A Ref that no pack can have is ErrDamaged.
func ConsumeRef(b []byte) (Ref, []byte, error) {
	if len(b) < RefLen {
		return Ref{}, nil, fmt.Errorf("pack reference: %w: %d bytes are missing", ErrDamaged, RefLen-len(b))
	}
	r := Ref{
		Hash:     Hash(b[:32]),
		Size:     binary.LittleEndian.Uint32(b[32:]),
		IndexLen: binary.LittleEndian.Uint32(b[36:]),
		IndexSum: [16]byte(b[40:56]),
		First:    binary.LittleEndian.Uint64(b[56:]),
		End:      binary.LittleEndian.Uint64(b[64:]),
		Sectors:  binary.LittleEndian.Uint64(b[72:]),
	}
	return r, b[RefLen:], r.check()
}

func (r Ref) check() error {
	off, _ := r.IndexRange()
	if off < headerLen || r.First >= r.End || r.End > maxEnd || r.Sectors > r.End-r.First {
		return fmt.Errorf("pack %s: reference: %w: size %d, index %d, sectors [%d, %d) with %d of data", r.Hash, ErrDamaged, r.Size, r.IndexLen, r.First, r.End, r.Sectors)
	}
	return nil
}
