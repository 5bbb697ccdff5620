package wlog

import "sync/atomic"

// reads remembers which blocks of a segment were read in its life: a bit each, 2 KiB for the largest segment. The first bit
// set also sets any.
type reads struct {
	any  atomic.Bool
	bits []atomic.Uint64
}

func newReads(size int64) reads { return reads{bits: make([]atomic.Uint64, (size/blockSize+63)/64)} }

// words calls fn for each word that has bits of the n bytes at off, with these bits, until fn returns false.
func (u *reads) words(off, n int64, fn func(w *atomic.Uint64, mask uint64) bool) {
	first, end := off/blockSize, (off+n+blockSize-1)/blockSize
	for first < end {
		k := min(end-first, 64-first%64)
		if !fn(&u.bits[first/64], (^uint64(0)>>(64-k))<<(first%64)) {
			return
		}
		first += k
	}
}

// Touch notes that the n bytes at off were read by somebody who may want them again. It takes no lock and costs a load
// where that is known already.
func (s *Segment) Touch(off, n int64) {
	s.reads.words(off, n, func(w *atomic.Uint64, mask uint64) bool {
		if w.Load()&mask != mask {
			w.Or(mask)
		}
		return true
	})
	if !s.reads.any.Load() {
		s.reads.any.Store(true)
	}
}

// Touched tells whether any of the n bytes at off was.
func (s *Segment) Touched(off, n int64) (was bool) {
	s.reads.words(off, n, func(w *atomic.Uint64, mask uint64) bool {
		was = w.Load()&mask != 0
		return !was
	})
	return was
}

// Touched tells whether anything of the log was read, in the lives its segments have now.
func (l *Log) Touched() bool {
	slots := l.table.slots.Load()
	if slots == nil {
		return false
	}
	for i := range *slots {
		if s := (*slots)[i].Load(); s != nil && s.reads.any.Load() {
			return true
		}
	}
	return false
}
