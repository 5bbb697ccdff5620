package volume

import (
	"context"
	"errors"
	"fmt"

	"glidefs-appliance/backend/wlog"
)

// errMoved: an edge sector changed between its read and the commit; read again.
var errMoved = errors.New("edge sector changed")

// guard remembers where the edge sectors of an odd write were when they were read. A write of whole sectors takes no
// lock against an odd one; so the odd one checks at its commit that nothing went in between. Otherwise it would bring
// back old bytes over an acknowledged write.
type guard struct {
	sectors [2]uint64
	vals    [2]uint64
	in      [2]bool
	held    [2]*wlog.Segment // so that a place can't be recycled and mean another version
	view    *view
}

func (g *guard) take(v *Volume, sectors [2]uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	g.sectors, g.view = sectors, v.mu.view
	for i, s := range sectors {
		g.vals[i], g.in[i] = v.lookLocked(s)
		if g.in[i] {
			g.held[i] = v.log.Acquire(uint32(g.vals[i] >> 32))
		}
	}
}

func (g *guard) release() {
	for _, s := range g.held {
		if s != nil {
			s.Release()
		}
	}
}

// standsLocked: a place in a held segment names one version of a sector; a sector outside the log is the same version as long as the view is.
func (g *guard) standsLocked(v *Volume) bool {
	for i, s := range g.sectors {
		if val, in := v.lookLocked(s); val != g.vals[i] || in != g.in[i] || !in && g.view != v.mu.view {
			return false
		}
	}
	return true
}

func (v *Volume) lookLocked(s uint64) (val uint64, in bool) {
	if r, ok := v.mu.m.at(v.mu.m.seek(s)); ok && r.first <= s {
		return v.mu.m.valueAt(r, s), true
	}
	return 0, false
}

// writeOdd writes bytes at any alignment: the two edge sectors are read, completed and written whole. Odd writes go one
// at a time; only FUSE makes them.
func (v *Volume) writeOdd(ctx context.Context, p []byte, off int64) (seq uint64, err error) {
	if err := v.takeEdge(ctx); err != nil {
		return 0, err
	}
	defer func() { <-v.edge }()
	lo, hi := off&^(v.sector-1), (off+int64(len(p))+v.sector-1)&^(v.sector-1)
	buf := make([]byte, hi-lo)
	for err = errMoved; err == errMoved; {
		seq, err = v.tryOdd(ctx, buf, lo, p, int(off-lo))
	}
	return seq, err
}

// takeEdge waits for the turn of an odd write. The one before may be waiting for the store, so that ends with ctx, or with
// the volume.
func (v *Volume) takeEdge(ctx context.Context) error {
	select {
	case v.edge <- struct{}{}:
		return nil
	case <-v.ctx.Done():
		return v.ended()
	case <-ctx.Done():
		return fmt.Errorf("write %s: %w", v.name, ctx.Err())
	}
}

// tryOdd reads the edges twice: first to have what is only in the store here, while nothing is held; and again, once there
// is room in the log, under the guard. Who waits for room must hold no segment: the room may have to come from it.
func (v *Volume) tryOdd(ctx context.Context, buf []byte, lo int64, p []byte, at int) (seq uint64, err error) {
	if err := v.readEdges(ctx, buf, lo); err != nil {
		return 0, err
	}
	o := ops.Get().(*op)
	defer o.put()
	if o.spans, err = v.reserve(ctx, int64(len(buf)), o.spans[:0]); err != nil {
		return 0, err
	}
	var g guard
	defer g.release()
	g.take(v, [2]uint64{uint64(lo / v.sector), uint64((lo+int64(len(buf)))/v.sector) - 1})
	if err := v.readEdges(ctx, buf, lo); err != nil {
		v.log.Abandon(o.spans)
		return 0, err
	}
	copy(buf[at:], p)
	return v.move(o, buf, lo, &g)
}

// readEdges reads the first and the last sector of buf.
func (v *Volume) readEdges(ctx context.Context, buf []byte, lo int64) error {
	err := v.ReadAt(ctx, buf[:v.sector], lo)
	if last := int64(len(buf)) - v.sector; err == nil && last > 0 {
		err = v.ReadAt(ctx, buf[last:], lo+last)
	}
	return err
}
