package pack

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/zeebo/blake3"
)

var (
	headMagic = [8]byte([]byte("glidepak"))
	tailMagic = [8]byte([]byte("glideend"))
)

func appendHead(b []byte, random [16]byte) []byte {
	b = append(b, headMagic[:]...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint32(b, 0)
	return append(b, random[:]...)
}

func (r Ref) appendTrailer(b []byte, sector uint32) []byte {
	b = append(b, tailMagic[:]...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint32(b, sector)
	b = binary.LittleEndian.AppendUint32(b, r.IndexLen)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = append(b, r.IndexSum[:]...)
	b = binary.LittleEndian.AppendUint64(b, r.First)
	b = binary.LittleEndian.AppendUint64(b, r.End)
	return binary.LittleEndian.AppendUint64(b, r.Sectors)
}

// nameOf hashes what lies before the frames and what lies behind them.
func nameOf(head, end []byte) (name Hash) {
	h := blake3.New()
	_, _ = h.Write(head)
	_, _ = h.Write(end)
	h.Sum(name[:0])
	return name
}

// Parse decodes a whole object: head, trailer and index, not the frames (DecodeFrame verifies each). Pack.Ref is computed from the
// bytes; a caller who knows the name compares Ref.Hash. Body is the slice given. Errors are ErrDamaged or ErrVersion.
func Parse(body []byte) (*Pack, error) {
	r, sector, err := parseEnds(body)
	if err != nil {
		return nil, fmt.Errorf("parse pack: %w", err)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	off, n := r.IndexRange()
	r.Hash = nameOf(body[:headerLen], body[off:])
	ix, err := DecodeIndex(r, body[off:off+n])
	if err != nil {
		return nil, err
	}
	if ix.SectorSize != sector {
		return nil, fmt.Errorf("pack %s: %w: sector size %d in the index, %d in the trailer", r.Hash, ErrDamaged, ix.SectorSize, sector)
	}
	return &Pack{Ref: r, Body: body, Index: ix}, nil
}

// Rename makes a copy of the pack r, whose object is body, that has random bytes, and so a name, of its own.
func Rename(r Ref, body []byte) (*Pack, error) {
	p, err := Parse(body)
	if err != nil {
		return nil, err
	}
	if p.Ref != r {
		return nil, fmt.Errorf("pack %s: %w: it is another one", r.Hash, ErrDamaged)
	}
	body = slices.Clone(body)
	rand.Read(body[randomAt:headerLen])
	return Parse(body)
}

func parseEnds(body []byte) (r Ref, sector uint32, err error) {
	if len(body) < headerLen+trailerLen || uint64(len(body)) > math.MaxUint32 {
		return Ref{}, 0, fmt.Errorf("%w: %d bytes", ErrDamaged, len(body))
	}
	t := body[len(body)-trailerLen:]
	if [8]byte(body[:8]) != headMagic || [8]byte(t[:8]) != tailMagic {
		return Ref{}, 0, fmt.Errorf("%w: not a pack", ErrDamaged)
	}
	for _, b := range [][]byte{body[8:], t[8:]} {
		if v := binary.LittleEndian.Uint32(b); v != version {
			return Ref{}, 0, fmt.Errorf("%w: %d", ErrVersion, v)
		}
	}
	return Ref{
		Size:     uint32(len(body)),
		IndexLen: binary.LittleEndian.Uint32(t[16:]),
		IndexSum: [16]byte(t[24:40]),
		First:    binary.LittleEndian.Uint64(t[40:]),
		End:      binary.LittleEndian.Uint64(t[48:]),
		Sectors:  binary.LittleEndian.Uint64(t[56:]),
	}, binary.LittleEndian.Uint32(t[12:]), nil
}
