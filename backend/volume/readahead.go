package volume

import (
	"context"
	"slices"
	"sync"

	"glidefs-appliance/backend/store"
)

// streams recognises sequential readers: each remembers where the next read of a stream would begin.
type streams struct {
	mu   sync.Mutex
	s    [8]stream
	turn int
}

type stream struct {
	next   int64 // where its next read begins
	ahead  int64 // fetched up to here
	window int64 // bytes; doubles with every continuation, so that chance neighbours cost little
}

// note takes a read into account and returns the range to fetch ahead; lo == hi when there is none.
func (st *streams) note(off, n, most int64) (lo, hi int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for i := range st.s {
		if s := &st.s[i]; s.next == off && off > 0 {
			return s.advance(off+n, most)
		}
	}
	st.s[st.turn] = stream{next: off + n, window: 128 << 10}
	st.turn = (st.turn + 1) % len(st.s)
	return 0, 0
}

func (s *stream) advance(next, most int64) (lo, hi int64) {
	s.next = next
	s.window = min(2*s.window, most)
	if s.ahead >= next+s.window/2 {
		return 0, 0
	}
	lo, hi = max(s.ahead, next), next+s.window
	s.ahead = hi
	return lo, hi
}

// readahead fetches what a sequential reader will want next into the clean cache, off the caller's path. Without a free
// slot it does nothing.
func (v *Volume) readahead(vw *view, off, n int64) {
	lo, hi := v.streams.note(off, n, v.host.Tuning.Readahead)
	hi = min(hi, v.Size())
	if lo >= hi {
		return
	}
	slots := v.host.shared().prefetch
	select {
	case slots <- struct{}{}:
	default:
		return
	}
	if !v.spawn(func() {
		defer func() { <-slots }()
		v.prefetch(store.With(v.ctx, store.Prefetch), vw, lo, hi)
	}) {
		<-slots
	}
}

// prefetch gives up at the first error: the guest's own read will meet and report it.
func (v *Volume) prefetch(ctx context.Context, vw *view, lo, hi int64) {
	ctx, cancel := context.WithTimeout(ctx, v.host.Tuning.ReadTimeout)
	defer cancel()
	r := v.resolver()
	defer r.put()
	first, end := v.sectors(lo, hi-lo)
	if r.resolve(ctx, vw, first, end) != nil {
		return
	}
	r.parts = slices.DeleteFunc(r.parts, func(pt part) bool {
		return pt.src.pack != nil || v.host.Cache.Has(frameKey(pt.src.ref.Hash, pt.frame))
	})
	for _, run := range frameRuns(r.parts) {
		if _, err := v.host.frames(ctx, run.src, run.ix, run.lo, run.hi); err != nil {
			return
		}
	}
}
