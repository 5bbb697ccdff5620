package pack

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"sort"

	"github.com/zeebo/blake3"
)

const (
	// maxEnd bounds sector numbers so that neither their sums nor, at the smallest sector size, their byte offsets overflow.
	maxEnd = math.MaxInt64 / minSector

	minFrameEntry  = 1 + 1 + 1 + 16
	maxFrameEntry  = 1 + 3 + 2 + 16
	minExtentEntry = 2
	maxExtentEntry = 2 * binary.MaxVarintLen64
	maxIndexHead   = 2 + 2*binary.MaxVarintLen32
)

// Find returns the position of the first extent that ends after sector: the one that holds it, or the next one; len(Extents) if none.
func (ix *Index) Find(sector uint64) int {
	return sort.Search(len(ix.Extents), func(i int) bool { return ix.Extents[i].End() > sector })
}

func (ix *Index) sectors() (n uint64) {
	for _, e := range ix.Extents {
		if e.Frame != ZeroFrame {
			n += e.Count
		}
	}
	return n
}

func (ix *Index) append(b []byte) []byte {
	b = append(b, version, byte(bits.TrailingZeros32(ix.SectorSize)))
	b = binary.AppendUvarint(b, uint64(len(ix.Frames)))
	b = binary.AppendUvarint(b, uint64(len(ix.Extents)))
	for _, f := range ix.Frames {
		b = append(b, f.Codec)
		b = binary.AppendUvarint(b, uint64(f.Len))
		b = binary.AppendUvarint(b, uint64(f.Raw/ix.SectorSize))
		b = append(b, f.Sum[:]...)
	}
	end := uint64(0)
	for _, e := range ix.Extents {
		zero := uint64(0)
		if e.Frame == ZeroFrame {
			zero = 1
		}
		b = binary.AppendUvarint(b, e.First-end)
		b = binary.AppendUvarint(b, e.Count<<1|zero)
		end = e.End()
	}
	return b
}

// DecodeIndex verifies and decodes the bytes of r.IndexRange. Errors are ErrDamaged or ErrVersion. b is not kept. What it
// allocates is bounded by a small multiple of len(b), whatever b holds.
func DecodeIndex(r Ref, b []byte) (*Index, error) {
	if uint64(len(b)) != uint64(r.IndexLen) || sum16(b) != r.IndexSum {
		return nil, fmt.Errorf("pack %s: index: %w: it does not match its sum", r.Hash, ErrDamaged)
	}
	ix, err := decodeIndex(b, int64(r.Size)-headerLen-trailerLen-int64(len(b)))
	if err != nil {
		return nil, fmt.Errorf("pack %s: index: %w", r.Hash, err)
	}
	n := len(ix.Extents)
	if ix.Extents[0].First != r.First || ix.Extents[n-1].End() != r.End || ix.sectors() != r.Sectors {
		return nil, fmt.Errorf("pack %s: index: %w: it does not match its reference", r.Hash, ErrDamaged)
	}
	return ix, nil
}

// decodeIndex decodes an index whose frames take exactly stored bytes.
func decodeIndex(b []byte, stored int64) (*Index, error) {
	d := decoder{b: b}
	if v := d.byte(); v != version && !d.bad {
		return nil, fmt.Errorf("%w: %d", ErrVersion, v)
	}
	shift := d.byte()
	frames, extents := d.uvarint(), d.uvarint()
	size := uint64(1) << shift // 0 from 64 up
	if d.bad || size < minSector || size > maxSector || extents == 0 ||
		frames > uint64(len(d.b))/minFrameEntry || extents > uint64(len(d.b))/minExtentEntry {
		return nil, fmt.Errorf("%w: bad head", ErrDamaged)
	}
	ix := &Index{SectorSize: uint32(size)}
	ix.Frames = d.frames(int(frames), uint32(size), stored)
	ix.Extents = d.extents(int(extents), ix)
	if d.bad || len(d.b) != 0 {
		return nil, fmt.Errorf("%w: bad frames or extents", ErrDamaged)
	}
	return ix, nil
}

// decoder consumes b; the first thing that is wrong sets bad, after which nothing it returns means anything.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || len(d.b) < n {
		d.bad = true
		return make([]byte, n)
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) byte() byte { return d.take(1)[0] }

// uvarint takes shortest forms only, so that one index has one encoding.
func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || n > 1 && d.b[n-1] == 0 {
		d.bad = true
		return 0
	}
	d.take(n)
	return v
}

func (d *decoder) frames(n int, sector uint32, stored int64) []Frame {
	frames := make([]Frame, 0, n)
	off := int64(headerLen)
	for range n {
		f := Frame{Off: uint32(off), Codec: d.byte()}
		size, raw := d.uvarint(), d.uvarint()
		f.Sum = [16]byte(d.take(16))
		if d.bad || size == 0 || size > uint64(stored) || raw == 0 || raw > uint64(MaxFrame/sector) {
			d.bad = true
			return nil
		}
		f.Len, f.Raw = uint32(size), uint32(raw)*sector
		off, stored = off+int64(size), stored-int64(size)
		frames = append(frames, f)
	}
	d.bad = d.bad || stored != 0
	return frames
}

// extents gives each data extent the next free place in the frames; all frames must come out full.
func (d *decoder) extents(n int, ix *Index) []Extent {
	if d.bad {
		return nil
	}
	extents := make([]Extent, 0, n)
	var end uint64
	place := place{ix: ix}
	for range n {
		gap, v := d.uvarint(), d.uvarint()
		e := Extent{First: end + gap, Count: v >> 1, Frame: ZeroFrame}
		if d.bad || e.Count == 0 || gap > maxEnd-end || e.Count > maxEnd-e.First {
			d.bad = true
			return nil
		}
		if v&1 == 0 && !place.put(&e) {
			d.bad = true
			return nil
		}
		end = e.End()
		extents = append(extents, e)
	}
	d.bad = d.bad || place.frame != len(ix.Frames)
	return extents
}

// place is where the next data extent goes.
type place struct {
	ix    *Index
	frame int
	off   uint64
}

// put gives e its frame and offset; false if it does not fit the frame.
func (p *place) put(e *Extent) bool {
	if p.frame == len(p.ix.Frames) || e.Count > MaxFrame {
		return false
	}
	raw, n := uint64(p.ix.Frames[p.frame].Raw), e.Count*uint64(p.ix.SectorSize)
	if p.off+n > raw {
		return false
	}
	e.Frame, e.Off = uint32(p.frame), uint32(p.off)
	if p.off += n; p.off == raw {
		p.frame, p.off = p.frame+1, 0
	}
	return true
}

func sum16(b []byte) [16]byte {
	sum := blake3.Sum256(b)
	return [16]byte(sum[:16])
}
