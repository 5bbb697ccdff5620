package volume

import (
	"context"

	"glidefs-appliance/backend/wlog"
	"glidefs-appliance/frontends"
)

// piece is a part of a read: n bytes at off of a segment's file; zeros (seg nil, hole false); or not in the log (hole).
type piece struct {
	seg  *wlog.Segment
	off  int64
	n    int64
	hole bool
}

// ReadAt implements frontends.Disk.
func (v *Volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	n := int64(len(p))
	if err := v.check(off, n, false); err != nil || n == 0 {
		return err
	}
	if seg, at, ok := v.one(off, n); ok {
		err := seg.ReadAt(p, at)
		seg.Release()
		return err
	}
	o := ops.Get().(*op)
	defer o.put()
	view := v.pieces(o, off, n)
	touch(o.read)
	return v.readPieces(ctx, view, o.read, p, off)
}

// one answers the common case: all of the range in one place of the log. The segment is held.
func (v *Volume) one(off, n int64) (*wlog.Segment, int64, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mu.m.n == 0 {
		return nil, 0, false
	}
	first, end := uint64(off/v.sector), uint64((off+n+v.sector-1)/v.sector)
	r, ok := v.mu.m.at(v.mu.m.seek(first))
	if !ok || r.first > first || r.end() < end || r.val&flagZero != 0 {
		return nil, 0, false
	}
	seg, at := v.log.Acquire(uint32(r.val>>32)), v.fileOff(r, off)
	seg.Touch(at, n)
	return seg, at, true
}

// fileOff is where byte off of the disk lies in the segment file of extent r.
func (v *Volume) fileOff(r run, off int64) int64 {
	return int64(uint32(r.val))*512 + off - int64(r.first)*v.sector
}

// pieces cuts [off, off+n) by the map of the log, holding the segments, and returns the view that goes with it.
func (v *Volume) pieces(o *op, off, n int64) *view {
	v.mu.Lock()
	defer v.mu.Unlock()
	end := off + n
	m := &v.mu.m
	for p := m.seek(uint64(off / v.sector)); off < end; p = m.next(p) {
		r, ok := m.at(p)
		lo := end
		if ok {
			lo = min(end, int64(r.first)*v.sector)
		}
		if off < lo {
			o.read = append(o.read, piece{n: lo - off, hole: true})
			off = lo
		}
		if off == end {
			break
		}
		hi := min(end, int64(r.end())*v.sector)
		pc := piece{n: hi - off}
		if r.val&flagZero == 0 {
			pc.seg, pc.off = v.log.Acquire(uint32(r.val>>32)), v.fileOff(r, off)
		}
		o.read = append(o.read, pc)
		off = hi
	}
	return v.mu.view
}

// touch notes what is read from the log: it is worth keeping when its segment goes.
func touch(pieces []piece) {
	for i := range pieces {
		if pc := &pieces[i]; pc.seg != nil {
			pc.seg.Touch(pc.off, pc.n)
		}
	}
}

func (v *Volume) readPieces(ctx context.Context, view *view, pieces []piece, p []byte, off int64) error {
	var first error
	for i := range pieces {
		pc := &pieces[i]
		dst := p[:pc.n]
		var err error
		switch {
		case first != nil:
		case pc.seg != nil:
			err = pc.seg.ReadAt(dst, pc.off)
		case pc.hole:
			err = v.readView(ctx, view, dst, off)
		default:
			clear(dst)
		}
		if pc.seg != nil {
			pc.seg.Release()
		}
		if first == nil {
			first = err
		}
		p, off = p[pc.n:], off+pc.n
	}
	return first
}

// MapRead implements frontends.Mapper: log segments, zeros and clean frames that are verified already.
func (v *Volume) MapRead(off, n int64, plan *frontends.Plan) bool {
	if v.check(off, n, false) != nil || n == 0 {
		return false
	}
	if seg, at, ok := v.one(off, n); ok {
		plan.Extents = append(plan.Extents, extent(seg.File(), at, n))
		plan.Refs = append(plan.Refs, seg)
		return true
	}
	o := ops.Get().(*op)
	defer o.put()
	view := v.pieces(o, off, n)
	touch(o.read)
	ok := true
	for i := range o.read {
		pc := &o.read[i]
		switch {
		case pc.seg != nil:
			plan.Refs = append(plan.Refs, pc.seg)
			plan.Extents = append(plan.Extents, extent(pc.seg.File(), pc.off, pc.n))
		case pc.hole:
			ok = ok && v.mapView(view, off, pc.n, plan)
		default:
			plan.Extents = append(plan.Extents, frontends.Extent{FD: -1, Len: pc.n})
		}
		off += pc.n
	}
	if !ok {
		plan.Release()
	}
	return ok
}
