package pack

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
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
	err := b.sealFrames(ix)
	if err == nil {
		b.appendEnd(ix)
		var p *Pack
		if p, err = b.verify(ix); err == nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("build pack: %w", err)
}

// encodeFrames stores the frames back to back after the head. Each is first stored where it would lie if all were raw, which no two
// of them share, and then moved down.
func (b *Builder) encodeFrames(ix *Index) {
	starts := frameStarts(ix)
	slots := b.body[headerLen : headerLen+len(b.raw)]
	_ = b.parallel(len(ix.Frames), func(i int, scratch []byte) error {
		f := &ix.Frames[i]
		codec, stored := encode(b.raw[starts[i]:starts[i+1]], scratch)
		f.Codec, f.Len = codec, uint32(len(stored))
		copy(slots[starts[i]:], stored)
		return nil
	})
	for i := range ix.Frames {
		f := &ix.Frames[i]
		f.Off = uint32(len(b.body))
		b.body = append(b.body, slots[starts[i]:starts[i]+int(f.Len)]...)
	}
}

// sealFrames decodes each frame where it lies in the object, compares it with what was added, and sums it. The sum is taken here,
// once, and of the bytes that were seen to decode: a sum taken when they were encoded would have to be checked.
func (b *Builder) sealFrames(ix *Index) error {
	starts := frameStarts(ix)
	return b.parallel(len(ix.Frames), func(i int, scratch []byte) error {
		f := &ix.Frames[i]
		stored := b.body[f.Off : f.Off+f.Len]
		raw, err := f.decode(stored, scratch)
		if err == nil && !bytes.Equal(raw, b.raw[starts[i]:starts[i+1]]) {
			err = fmt.Errorf("%w: it decodes to something else", ErrDamaged)
		}
		if err != nil {
			return fmt.Errorf("frame %d: %w", i, err)
		}
		f.Sum = sum16(stored)
		return nil
	})
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

// verify reads head, index and trailer of the finished object with the code that readers use.
func (b *Builder) verify(want *Index) (*Pack, error) {
	p, err := Parse(b.body)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(p.Index.Extents, want.Extents) || !slices.Equal(p.Index.Frames, want.Frames) {
		return nil, fmt.Errorf("%w: the index decodes to something else", ErrDamaged)
	}
	return p, nil
}

// scratches hold a frame, compressed or not; zstd adds a few bytes to what it can't compress.
var scratches = sync.Pool{New: func() any { return new([MaxFrame + 1024]byte) }}

// parallel calls f for 0..n-1, each under one slot, and returns the first error. A slot is held for one frame only, so that
// packs of many disks, and whoever else wants the CPU, take turns.
func (b *Builder) parallel(n int, f func(i int, scratch []byte) error) error {
	workers := max(1, min(n, cap(b.slots)))
	errs, panics := make([]error, workers), make([]any, workers)
	var next atomic.Int64
	work := func(w int) {
		defer func() {
			if p := recover(); p != nil {
				panics[w] = fmt.Sprintf("%v\n\n%s", p, debug.Stack())
			}
		}()
		scratch := scratches.Get().(*[MaxFrame + 1024]byte)
		defer scratches.Put(scratch)
		for i := int(next.Add(1)) - 1; i < n && errs[w] == nil; i = int(next.Add(1)) - 1 {
			errs[w] = b.withSlot(func() error { return f(i, scratch[:]) })
		}
	}
	var wg sync.WaitGroup
	for w := 1; w < workers; w++ {
		wg.Go(func() { work(w) })
	}
	work(0)
	wg.Wait()
	for _, p := range panics {
		if p != nil { // it goes on in the caller, when nobody works for him any more
			panic(p)
		}
	}
	return errors.Join(errs...)
}

func (b *Builder) withSlot(f func() error) error {
	if b.slots != nil {
		b.slots <- struct{}{}
		defer func() { <-b.slots }()
	}
	return f()
}
