package volume

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"glidefs-appliance/backend/cache"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/frontends"
)

// localOnly is a context that has ended: what can be answered from memory is, and no request is made.
var localOnly = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

var resolvers = sync.Pool{New: func() any { return new(resolver) }}

func (v *Volume) resolver() *resolver {
	r := resolvers.Get().(*resolver)
	r.host = v.host
	return r
}

func (r *resolver) put() {
	clear(r.parts[:cap(r.parts)])
	resolvers.Put(r)
}

// sectors of [off, off+n), the partial ones included.
func (v *Volume) sectors(off, n int64) (first, end uint64) {
	return uint64(off / v.sector), uint64((off + n + v.sector - 1) / v.sector)
}

// readView reads what the log does not have: from the clean cache when all of it is there, else from the store, which
// may take Tuning.ReadTimeout, or until the volume ends.
func (v *Volume) readView(ctx context.Context, vw *view, p []byte, off int64) error {
	first, end := v.sectors(off, int64(len(p)))
	r := v.resolver()
	defer r.put()
	if r.resolve(localOnly, vw, first, end) == nil && v.readCached(r.parts, p, off) {
		v.readahead(vw, off, int64(len(p)))
		return nil
	}
	ctx, cancel := context.WithTimeout(store.With(ctx, store.Guest), v.host.Tuning.ReadTimeout)
	defer cancel()
	defer context.AfterFunc(v.ctx, cancel)()
	err := v.readStore(ctx, vw, r, p, off)
	if isGone(err) {
		vw, err = v.readLater(ctx, vw, r, p, off, err)
	}
	if err != nil && v.ctx.Err() != nil {
		return v.ended()
	}
	v.noteStore(err)
	v.readahead(vw, off, int64(len(p)))
	return err
}

// readLater looks again, in newer views, while an object that a view names is gone: compaction has merged packs since and a
// collector swept them, old as they were. What is gone in the newest is damage. It returns the view that is good for the
// next read.
func (v *Volume) readLater(ctx context.Context, old *view, r *resolver, p []byte, off int64, gone error) (*view, error) {
	for isGone(gone) {
		vw, err := v.newer(ctx, old)
		if err != nil {
			return old, err
		}
		if vw == old {
			return old, v.host.damage("object that the manifest names", gone)
		}
		old, gone = vw, v.readStore(ctx, vw, r, p, off)
	}
	return old, gone
}

// newer returns a newer view than old, or old if there is none. It may wait for the store.
func (v *Volume) newer(ctx context.Context, old *view) (*view, error) {
	switch vw := v.currentView(); {
	case vw != old:
		return vw, nil
	case v.log == nil:
		return v.refresh(ctx)
	}
	return v.catchUp(ctx)
}

func (v *Volume) readStore(ctx context.Context, vw *view, r *resolver, p []byte, off int64) error {
	first, end := v.sectors(off, int64(len(p)))
	if err := r.resolve(ctx, vw, first, end); err != nil {
		return err
	}
	clear(p)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readParallel)
	for _, run := range frameRuns(r.parts) {
		g.Go(func() error {
			return v.try(func() error { return v.readRun(ctx, &run, p, off) })
		})
	}
	return g.Wait()
}

// readRun reads the parts of one run, when there is memory for its frames. Whoever leads a fetch has his memory already, so
// those who wait for it wait for no memory.
func (v *Volume) readRun(ctx context.Context, run *frameRun, p []byte, off int64) error {
	n := min(run.memory(), readMemory/2)
	if err := v.reads.Acquire(ctx, n); err != nil {
		return fmt.Errorf("read %s: %w", v.name, err)
	}
	defer v.reads.Release(n)
	all := v.host.shared().reads
	if err := all.Acquire(ctx, n); err != nil {
		return fmt.Errorf("read %s: %w", v.name, err)
	}
	defer all.Release(n)
	frames, err := v.host.frames(ctx, run.src, run.ix, run.lo, run.hi)
	if err != nil {
		return err
	}
	for _, pt := range run.parts {
		v.copyPart(pt, frames[pt.frame-run.lo][pt.off:], p, off)
	}
	return nil
}

// readParallel bounds the requests one guest read makes at a time.
const readParallel = 8

// span is the overlap of a part with the bytes [off, off+n) of the disk: n bytes, at `from` in the part and `at` in the request.
func (v *Volume) span(pt part, off, n int64) (from, at, count int64) {
	lo, hi := max(int64(pt.first)*v.sector, off), min(int64(pt.first+pt.count)*v.sector, off+n)
	return lo - int64(pt.first)*v.sector, lo - off, hi - lo
}

func (v *Volume) copyPart(pt part, data, p []byte, off int64) {
	from, at, n := v.span(pt, off, int64(len(p)))
	copy(p[at:at+n], data[from:])
}

// readCached fills p from clean frames only; false when one is missing.
func (v *Volume) readCached(parts []part, p []byte, off int64) bool {
	if !v.covered(parts, off, int64(len(p))) {
		clear(p)
	}
	for _, pt := range parts {
		hit, ok := v.host.Cache.Get(frameKey(pt.src.ref.Hash, pt.frame))
		if !ok {
			return false
		}
		from, at, n := v.span(pt, off, int64(len(p)))
		err := hit.ReadAt(p[at:at+n], pt.off+from)
		hit.Release()
		if err != nil {
			return false
		}
	}
	return true
}

// covered tells whether the parts leave nothing of [off, off+n) out.
func (v *Volume) covered(parts []part, off, n int64) bool {
	first, end := v.sectors(off, n)
	for _, pt := range parts {
		first += pt.count
	}
	return first == end
}

// mapView adds the extents of [off, off+n) to plan when all of it lies in clean frames that are verified.
func (v *Volume) mapView(vw *view, off, n int64, plan *frontends.Plan) bool {
	first, end := v.sectors(off, n)
	r := v.resolver()
	defer r.put()
	if r.resolve(localOnly, vw, first, end) != nil {
		return false
	}
	at := off
	zeros := func(to int64) {
		if at < to {
			plan.Extents = append(plan.Extents, frontends.Extent{FD: -1, Len: to - at})
			at = to
		}
	}
	for _, pt := range r.parts {
		hit, ok := v.host.Cache.Probe(frameKey(pt.src.ref.Hash, pt.frame))
		if !ok {
			return false
		}
		from, skip, count := v.span(pt, off, n)
		zeros(off + skip)
		plan.Refs = append(plan.Refs, hit)
		plan.Extents = append(plan.Extents, extent(hit.File(), hit.Off()+pt.off+from, count))
		at += count
	}
	zeros(off + n)
	return true
}

var _ frontends.Ref = (*cache.Hit)(nil)
