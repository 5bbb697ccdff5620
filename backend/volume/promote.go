package volume

import (
	"glidefs-appliance/backend/cache"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/wlog"
)

// The log is the clean cache's waiting room: what was read while it lay there moves to the cache when its segment is given
// up. The unit of the cache is the frame of a pack, so a frame goes as soon as the first segment that has a part of it does,
// if any part of it was read and the log still has all parts; one that was overwritten in part is left out.
//
// Nothing has to be argued about versions: bytes are kept only if they give the sum that the pack's index has for the frame
// (pack.Index.Holds). That costs compressing hot frames once more.

// promoter moves the frames of one segment.
type promoter struct {
	v    *Volume
	seg  *wlog.Segment
	res  *resolver
	last cache.Key // looked at
	raw  []byte
}

// promote is called before the map forgets the segment. It runs ahead of need, in the goroutine that makes room: as soon as
// a writer waits for that it gives up.
func (v *Volume) promote(seg *wlog.Segment) {
	if !v.log.Touched() {
		return
	}
	p := promoter{v: v, seg: seg, res: v.resolver()}
	defer p.res.put()
	_ = seg.Records(func(r wlog.Record) error { // evict meets the same error and reports it
		if r.Kind != wlog.KindWrite {
			return nil
		}
		return p.record(r.First, r.First+r.Count)
	})
}

// hurried: somebody waits for room, or the volume ends.
func (p *promoter) hurried() bool {
	return p.v.waiting.Load() > 0 || p.v.host.Budget.Waiting() > 0 || p.v.dead.Load() != nil
}

// record looks at those sectors of a record that the map still has in the segment.
func (p *promoter) record(first, end uint64) error {
	for first < end {
		if p.hurried() {
			return errCut
		}
		r, vw, ok := p.next(first, end)
		if !ok {
			return nil
		}
		if first = r.end(); r.val&flagZero == 0 && uint32(r.val>>32) == p.seg.Number() {
			p.run(vw, r.first, r.end())
		}
	}
	return nil
}

func (p *promoter) next(first, end uint64) (r run, vw *view, ok bool) {
	v := p.v
	v.mu.Lock()
	defer v.mu.Unlock()
	if r, ok = v.mu.m.at(v.mu.m.seek(first)); !ok || r.first >= end {
		return run{}, nil, false
	}
	return v.mu.m.clip(r, first, end), v.mu.view, true
}

// run offers the frames that the view has for a run. An index that is not on this host is not worth a request.
func (p *promoter) run(vw *view, first, end uint64) {
	if p.res.resolve(localOnly, vw, first, end) != nil {
		return
	}
	for _, pt := range p.res.parts {
		if key := frameKey(pt.src.ref.Hash, pt.frame); key != p.last && !p.hurried() {
			p.last = key
			p.frame(key, pt)
		}
	}
}

func (p *promoter) frame(key cache.Key, pt part) {
	h := p.v.host
	if pt.src.pack != nil || h.Cache.Has(key) { // an inline pack is in memory
		return
	}
	o := ops.Get().(*op)
	defer o.put()
	hot := p.gather(o, frameExtents(pt.ix, pt.frame, pt.first))
	raw, ok := p.read(o, hot)
	if !ok {
		return
	}
	if p.holds(pt, raw) {
		h.Cache.Offer(key, raw)
		h.counters.promoted.Add(1)
	}
}

// holds tells whether raw is the frame of a part, under a slot.
func (p *promoter) holds(pt part, raw []byte) bool {
	slots := p.v.host.CPU
	slots <- struct{}{}
	defer func() { <-slots }()
	return pt.ix.Holds(pt.frame, raw)
}

// gather collects the places of a frame's sectors in the log; false if it is cold, or one of them is not there.
func (p *promoter) gather(o *op, extents []pack.Extent) (hot bool) {
	v := p.v
	for i := range extents {
		if e := &extents[i]; e.Frame != pack.ZeroFrame {
			v.pieces(o, int64(e.First)*v.sector, int64(e.Count)*v.sector)
		}
	}
	whole := true
	for i := range o.read {
		pc := &o.read[i]
		whole = whole && pc.seg != nil
		hot = hot || pc.seg != nil && pc.seg.Touched(pc.off, pc.n)
	}
	return hot && whole
}

// read returns the gathered bytes, if they are wanted, and lets go of the segments.
func (p *promoter) read(o *op, wanted bool) (raw []byte, ok bool) {
	p.raw = p.raw[:0]
	for i := range o.read {
		pc := &o.read[i]
		if pc.seg == nil {
			continue
		}
		if wanted {
			at := len(p.raw)
			p.raw = append(p.raw, make([]byte, pc.n)...)
			wanted = pc.seg.ReadAt(p.raw[at:], pc.off) == nil
		}
		pc.seg.Release()
	}
	return p.raw, wanted
}

// frameExtents returns the extents of a frame, with zero extents between them, one of which has the sector.
func frameExtents(ix *pack.Index, frame uint32, sector uint64) []pack.Extent {
	of := func(i int) bool { return ix.Extents[i].Frame == frame || ix.Extents[i].Frame == pack.ZeroFrame }
	lo := ix.Find(sector)
	hi := lo + 1
	for lo > 0 && of(lo-1) {
		lo--
	}
	for hi < len(ix.Extents) && of(hi) {
		hi++
	}
	return ix.Extents[lo:hi]
}
