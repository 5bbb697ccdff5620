package pack

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
)

// Finish encodes what was added, decodes it again and compares. It waits for slots; the caller must hold none of them. The Body of
// the pack is the Builder's memory and valid until Reset; everything else of it is the caller's. An error means misuse (nothing
// added, wrong order), a pack of 4 GiB, or that what was encoded did not decode to the same: then nothing must be uploaded.
func (b *Builder) Finish() (*Pack, error) {
	if b.err == nil && len(b.runs) == 0 {
		b.err = errors.New("nothing was added")
	}
	if b.err != nil {
		return nil, fmt.Errorf("build pack: %w", b.err)
	}
	if b.Size() > math.MaxUint32 {
		return nil, fmt.Errorf("build pack: %d bytes are too many", b.Size())
	}
	ix := b.cut()
	b.body = slices.Grow(b.body[:0], b.Size())
	var random [16]byte
	rand.Read(random[:])
	b.body = appendHead(b.body, random)
	b.encodeFrames(ix)
	b.appendEnd(ix)
	p, err := b.verify(ix)
	if err != nil {
		return nil, fmt.Errorf("build pack: %w", err)
	}
	return p, nil
}

// encodeFrames stores the frames back to back after the head. Each is first stored where it would lie if all were raw, which no two
// of them share, and then moved down.
func (b *Builder) encodeFrames(ix *Index) {
	starts := frameStarts(ix)
	slots := b.body[headerLen : headerLen+len(b.raw)]
	_ = b.parallel(len(ix.Frames), func(i int, scratch []byte) error {
		f := &ix.Frames[i]
		codec, stored := encode(b.raw[starts[i]:starts[i+1]], scratch)
		f.Codec, f.Len, f.Sum = codec, uint32(len(stored)), sum16(stored)
		copy(slots[starts[i]:], stored)
		return nil
	})
	for i := range ix.Frames {
		f := &ix.Frames[i]
		f.Off = uint32(len(b.body))
		b.body = append(b.body, slots[starts[i]:starts[i]+int(f.Len)]...)
	}
}

// frameStarts gives for each frame where its data begins in Builder.raw, and the end of the last.
func frameStarts(ix *Index) []int {
	starts := make([]int, len(ix.Frames)+1)
	for i, f := range ix.Frames {
		starts[i+1] = starts[i] + int(f.Raw)
	}
	return starts
}

func (b *Builder) appendEnd(ix *Index) {
	start := len(b.body)
	b.body = ix.append(b.body)
	index := b.body[start:]
	r := Ref{
		IndexLen: uint32(len(index)),
		IndexSum: sum16(index),
		First:    ix.Extents[0].First,
		End:      ix.Extents[len(ix.Extents)-1].End(),
		Sectors:  ix.sectors(),
	}
	b.body = r.appendTrailer(b.body, ix.SectorSize)
}

// verify reads the finished object with the code that readers use and compares it with what was added.
func (b *Builder) verify(want *Index) (*Pack, error) {
	p, err := Parse(b.body)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(p.Index.Extents, want.Extents) || !slices.Equal(p.Index.Frames, want.Frames) {
		return nil, fmt.Errorf("%w: the index decodes to something else", ErrDamaged)
	}
	starts := frameStarts(want)
	return p, b.parallel(len(want.Frames), func(i int, scratch []byte) error {
		f := p.Index.Frames[i]
		raw, err := p.Index.DecodeFrame(uint32(i), p.Body[f.Off:f.Off+f.Len], scratch)
		if err == nil && !bytes.Equal(raw, b.raw[starts[i]:starts[i+1]]) {
			err = fmt.Errorf("frame %d: %w: it decodes to something else", i, ErrDamaged)
		}
		return err
	})
}

// scratches hold a frame, compressed or not; zstd adds a few bytes to what it can't compress.
var scratches = sync.Pool{New: func() any { return new([MaxFrame + 1024]byte) }}

// parallel calls f for 0..n-1, each under one slot, and returns the first error. A slot is held for one frame only, so that
// packs of many disks, and whoever else wants the CPU, take turns.
func (b *Builder) parallel(n int, f func(i int, scratch []byte) error) error {
	workers := max(1, min(n, cap(b.slots)))
	errs := make([]error, workers)
	var next atomic.Int64
	work := func(err *error) {
		scratch := scratches.Get().(*[MaxFrame + 1024]byte)
		defer scratches.Put(scratch)
		for i := int(next.Add(1)) - 1; i < n && *err == nil; i = int(next.Add(1)) - 1 {
			*err = b.withSlot(func() error { return f(i, scratch[:]) })
		}
	}
	var wg sync.WaitGroup
	for i := 1; i < workers; i++ {
		wg.Go(func() { work(&errs[i]) })
	}
	work(&errs[0])
	wg.Wait()
	return errors.Join(errs...)
}

func (b *Builder) withSlot(f func() error) error {
	if b.slots != nil {
		b.slots <- struct{}{}
		defer func() { <-b.slots }()
	}
	return f()
}
