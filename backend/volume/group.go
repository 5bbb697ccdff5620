package volume

import (
	"errors"
	"sync"

	"glidefs-appliance/backend/wlog"
	"glidefs-appliance/frontends"
)

// errNoRoom: the write has to wait for room in the log, which no flush may.
var errNoRoom = errors.New("no room")

// gatherBytes is the most that is copied together for one pwrite.
const gatherBytes = 256 << 10

var (
	groupWrites = sync.Pool{New: func() any { return new(wlog.GroupWrite) }}
	gathers     = sync.Pool{New: func() any { return &gather{buf: make([]byte, 0, gatherBytes)} }}
)

// mayGroup tells which writes are worth a copy: short ones of whole sectors.
func (v *Volume) mayGroup(p []byte, off int64) bool {
	return len(p) <= min(frontends.ShortWrite, v.maxWrite()) && (off|int64(len(p)))&(v.sector-1) == 0
}

// writeGrouped has the next flush write p, together with whatever else it finds. errNoRoom: it could not.
func (v *Volume) writeGrouped(p []byte, off int64) error {
	w := groupWrites.Get().(*wlog.GroupWrite)
	defer groupWrites.Put(w)
	*w = wlog.GroupWrite{Data: p, Off: off}
	err := v.failed(v.log.FlushGrouped(w))
	if w.Err != nil {
		err = w.Err
	}
	*w = wlog.GroupWrite{}
	return err
}

// appendGroup writes the data of the group and appends it, each write a request of its own. A panic is contained here:
// the others of the group wait for the flush of the one who leads it.
func (v *Volume) appendGroup(group []*wlog.GroupWrite) {
	var seq uint64
	err := v.try(func() (err error) {
		seq, err = v.writeGroup(group)
		return err
	})
	for _, w := range group {
		if w.Err == nil {
			w.Seq, w.Err = seq, err
		}
	}
}

// writeGroup returns the seq of the last write that there was room for.
func (v *Volume) writeGroup(group []*wlog.GroupWrite) (uint64, error) {
	o, g := ops.Get().(*op), gathers.Get().(*gather)
	defer o.put()
	defer gathers.Put(g)
	if err := v.moveGroup(o, g, group); err != nil {
		v.log.Abandon(o.spans)
		return 0, err
	}
	if len(o.recs) == 0 {
		return 0, nil
	}
	return v.append(o, nil)
}

// moveGroup fills the spans of all that there is room for.
func (v *Volume) moveGroup(o *op, g *gather, group []*wlog.GroupWrite) error {
	for _, w := range group {
		n, ok := len(o.spans), false
		if o.spans, ok = v.log.TryReserve(int64(len(w.Data)), o.spans); !ok {
			w.Err = errNoRoom
			continue
		}
		p, off := w.Data, w.Off
		for _, s := range o.spans[n:] {
			if err := g.add(s, p[:s.Len]); err != nil {
				return v.failed(err)
			}
			o.recs = append(o.recs, v.record(p[:s.Len], off))
			p, off = p[s.Len:], off+s.Len
		}
		o.recs[len(o.recs)-1].Flags |= wlog.FlagEnd
	}
	return v.failed(g.flush())
}

// gather puts together what goes to one place.
type gather struct {
	seg *wlog.Segment
	off int64
	buf []byte
}

func (g *gather) add(s wlog.Span, p []byte) error {
	if s.Seg != g.seg || s.Off != g.off+int64(len(g.buf)) || len(g.buf)+len(p) > cap(g.buf) {
		if err := g.flush(); err != nil {
			return err
		}
		g.seg, g.off = s.Seg, s.Off
	}
	g.buf = append(g.buf, p...)
	return nil
}

func (g *gather) flush() error {
	seg, buf := g.seg, g.buf
	g.seg, g.buf = nil, buf[:0]
	if len(buf) == 0 {
		return nil
	}
	return seg.WriteAt(buf, g.off)
}
