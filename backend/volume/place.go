package volume

import (
	"context"
	"errors"

	"glidefs-appliance/backend/vfs"
	"glidefs-appliance/backend/wlog"
	"glidefs-appliance/frontends"
)

// A write whose bytes a frontend moves itself takes the steps of Volume.write apart: reserve, then the frontend's own
// I/O on the descriptors of the spans, then commit. Nothing is locked in between; an op holds the spans meanwhile.

// errOdd: not whole sectors, or more than one reservation takes; WriteAt does such writes.
var errOdd = errors.New("not a write that can be placed")

var _ frontends.Placer = (*Volume)(nil)

// TryReserve implements frontends.Placer.
func (v *Volume) TryReserve(off, n int64, place *frontends.Placement) bool {
	if v.placeable(off, n) != nil {
		return false
	}
	o := ops.Get().(*op)
	var ok bool
	if o.spans, ok = v.log.TryReserve(n, o.spans[:0]); !ok {
		o.put()
		return false
	}
	o.describe(place, n)
	return true
}

// Reserve implements frontends.Placer.
func (v *Volume) Reserve(ctx context.Context, off, n int64, place *frontends.Placement) error {
	if err := v.placeable(off, n); err != nil {
		return err
	}
	o := ops.Get().(*op)
	var err error
	if o.spans, err = v.reserve(ctx, n, o.spans[:0]); err != nil {
		o.put()
		return err
	}
	o.describe(place, n)
	return nil
}

func (v *Volume) placeable(off, n int64) error {
	if err := v.check(off, n, true); err != nil {
		return err
	}
	if n == 0 || n > int64(v.maxWrite()) || (off|n)&(v.sector-1) != 0 {
		return errOdd
	}
	return nil
}

// describe tells the frontend where the n bytes of the spans go.
func (o *op) describe(place *frontends.Placement, n int64) {
	place.Own = o
	for i := range o.spans {
		s := &o.spans[i]
		e := extent(s.Seg.File(), s.Off, s.Len)
		if n <= frontends.ShortWrite {
			e.Direct = e.FD
		} else if d, ok := s.Seg.File().(directIO); ok && e.Direct != e.FD {
			d.MixWrites()
		}
		place.Extents = append(place.Extents, e)
	}
}

// directIO is what a file can do that also has a descriptor past the page cache.
type directIO interface {
	DirectFd() int
	MixWrites()
}

// extent describes bytes of a file. Past the page cache a ring moves them without a helper thread or a copy; but only
// whole blocks of any SSD go that way.
func extent(f vfs.File, off, n int64) frontends.Extent {
	e := frontends.Extent{FD: f.Fd(), Off: off, Len: n}
	e.Direct = e.FD
	if d, ok := f.(directIO); ok && (off|n)%4096 == 0 {
		e.Direct = d.DirectFd()
	}
	return e
}

// Commit implements frontends.Placer. Records of bytes that nobody saw carry no checksum: recovery trusts them up to
// the durable mark only, which the next Flush moves.
func (v *Volume) Commit(writes []frontends.Write) error {
	all := ops.Get().(*op)
	defer all.put()
	for i := range writes {
		v.collect(all, &writes[i])
	}
	return v.commit(v.append(all, nil))
}

// collect moves the spans of a write to all, with their records, and empties its placement.
func (v *Volume) collect(all *op, w *frontends.Write) {
	o, sums, sector := w.Place.Own.(*op), w.Place.Sums, uint64(w.Off/v.sector)
	for i := range o.spans {
		s := &o.spans[i]
		r := wlog.Record{Kind: wlog.KindWrite, First: sector, Count: uint64(s.Len / v.sector)}
		if len(sums) > 0 {
			r.Flags, r.Sum = wlog.FlagSum, sums[i]
		}
		all.recs = append(all.recs, r)
		sector += r.Count
	}
	all.recs[len(all.recs)-1].Flags |= wlog.FlagEnd
	all.spans = append(all.spans, o.spans...)
	release(w.Place)
}

// Abandon implements frontends.Placer.
func (v *Volume) Abandon(place *frontends.Placement) {
	v.log.Abandon(place.Own.(*op).spans)
	release(place)
}

func release(place *frontends.Placement) {
	place.Own.(*op).put()
	place.Own, place.Extents, place.Sums = nil, place.Extents[:0], place.Sums[:0]
}
