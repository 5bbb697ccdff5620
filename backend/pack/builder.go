package pack

import (
	"bytes"
	"fmt"
	"math/bits"
	"slices"
)

// Builder collects the sectors of one pack. It is reused by Reset, so that batch after batch needs no new memory. Not safe for
// concurrent use.
type Builder struct {
	sector uint64 // bytes
	slots  chan struct{}
	runs   []run  // ascending, adjacent ones of one kind merged
	raw    []byte // the data of the runs that are not zero, back to back
	pieces uint64 // extents that Finish will cut, at most
	body   []byte // memory of the pack Finish returned
	err    error  // first misuse; Finish returns it
}

// run is a stretch of sectors, all with data or all zero.
type run struct {
	first, count uint64
	zero         bool
}

// NewBuilder makes a Builder for sectors of 512 to 4096 bytes. Finish compresses and verifies on up to cap(slots) goroutines, each
// of which sends to slots before and receives from it after a frame; with nil it does all the work itself.
func NewBuilder(sectorSize int, slots chan struct{}) *Builder {
	if sectorSize < minSector || sectorSize > maxSector || bits.OnesCount(uint(sectorSize)) != 1 {
		panic(fmt.Sprintf("pack: sector size %d", sectorSize))
	}
	return &Builder{sector: uint64(sectorSize), slots: slots}
}

// Reset forgets everything added but keeps the memory. It ends the life of the Body that Finish returned.
func (b *Builder) Reset() {
	b.runs, b.raw, b.pieces, b.err = b.runs[:0], b.raw[:0], 0, nil
}

// Grow makes room for n bytes of data at once, so that adding them copies none of it again.
func (b *Builder) Grow(n int) { b.raw = slices.Grow(b.raw, n) }

// Add appends sectors from first on; data is whole sectors and is copied. Sectors must come in ascending order, each once; Finish
// reports it when they don't.
func (b *Builder) Add(first uint64, data []byte) {
	if uint64(len(data))%b.sector != 0 {
		b.fail(fmt.Errorf("add %d bytes at sector %d: not whole sectors", len(data), first))
		return
	}
	for len(data) > 0 && b.err == nil {
		n, zero := b.alike(data)
		b.push(run{first, n, zero})
		if !zero {
			b.raw = append(b.raw, data[:n*b.sector]...)
		}
		first, data = first+n, data[n*b.sector:]
	}
}

// AddZero appends count sectors of zeros; the rules of Add hold.
func (b *Builder) AddZero(first, count uint64) {
	if count > 0 && b.err == nil {
		b.push(run{first, count, true})
	}
}

// Size is an upper bound of the object that Finish would make now, in bytes; 0 when nothing was added. It exceeds the data added
// by 0.2 % for long runs and by 1 % for scattered 4 KiB sectors.
func (b *Builder) Size() int {
	if len(b.runs) == 0 {
		return 0
	}
	return headerLen + len(b.raw) + maxIndexHead + int(b.pieces)*(maxFrameEntry+maxExtentEntry) + trailerLen
}

// Raw is the data added so far in bytes, without the sectors that are all zero.
func (b *Builder) Raw() int { return len(b.raw) }

var zeros [maxSector]byte

// alike counts the sectors at the front of data that are all zero, or that all are not.
func (b *Builder) alike(data []byte) (n uint64, zero bool) {
	zero = b.isZero(data)
	for n = 1; n*b.sector < uint64(len(data)) && b.isZero(data[n*b.sector:]) == zero; n++ {
	}
	return n, zero
}

func (b *Builder) isZero(data []byte) bool { return bytes.Equal(data[:b.sector], zeros[:b.sector]) }

func (b *Builder) push(r run) {
	if r.first > maxEnd || r.count > maxEnd-r.first {
		b.fail(fmt.Errorf("add %d sectors at %d: beyond the largest disk", r.count, r.first))
		return
	}
	if n := len(b.runs); n > 0 {
		last := &b.runs[n-1]
		end := last.first + last.count
		if r.first < end {
			b.fail(fmt.Errorf("add sector %d after sector %d: not in ascending order", r.first, end-1))
			return
		}
		if r.first == end && r.zero == last.zero {
			b.pieces -= b.cuts(*last)
			last.count += r.count
			b.pieces += b.cuts(*last)
			return
		}
	}
	b.runs = append(b.runs, r)
	b.pieces += b.cuts(r)
}

func (b *Builder) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

// cuts is how many extents r becomes: a zero run one, others one for each MaxFrame of the disk that they touch.
func (b *Builder) cuts(r run) uint64 {
	if r.zero {
		return 1
	}
	per := MaxFrame / b.sector
	return (r.first+r.count-1)/per - r.first/per + 1
}
