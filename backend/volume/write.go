package volume

import (
	"context"
	"hash/crc32"
	"sync"
	"time"

	"glidefs-appliance/backend/wlog"
	"glidefs-appliance/frontends"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// op is the scratch of one request, pooled so that the hot paths don't allocate.
type op struct {
	spans []wlog.Span
	recs  []wlog.Record
	read  []piece
}

var ops = sync.Pool{New: func() any { return new(op) }}

func (o *op) put() {
	clear(o.spans)
	clear(o.read)
	o.spans, o.recs, o.read = o.spans[:0], o.recs[:0], o.read[:0]
	ops.Put(o)
}

// WriteAt implements frontends.Disk.
func (v *Volume) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	if err := v.check(off, int64(len(p)), true); err != nil || len(p) == 0 {
		return err
	}
	if fua && v.mayGroup(p, off) {
		if err := v.writeGrouped(p, off); err != errNoRoom {
			return err
		}
	}
	var seq uint64
	var err error
	for len(p) > 0 && err == nil {
		n := min(len(p), v.maxWrite()-int(off&(v.sector-1))) // a crash between two parts leaves every sector old or new
		if (off|int64(n))&(v.sector-1) == 0 {
			seq, err = v.write(ctx, p[:n], off)
		} else {
			seq, err = v.writeOdd(ctx, p[:n], off)
		}
		p, off = p[n:], off+int64(n)
	}
	if err == nil && fua { // which commits as well: no need to wait for that before
		return v.failed(v.log.Flush())
	}
	return v.commit(seq, err)
}

// commit returns once what was appended up to seq survives the death of the process.
func (v *Volume) commit(seq uint64, err error) error {
	if err != nil {
		return err
	}
	return v.failed(v.log.Commit(seq))
}

// maxWrite is the most that is taken from the log at a time, in bytes: what frontends send at most, less with the tiny
// segments of tests.
func (v *Volume) maxWrite() int { return int(min(1<<20, v.log.MaxReserve()/2)) &^ 4095 }

// write moves whole sectors to the log.
func (v *Volume) write(ctx context.Context, p []byte, off int64) (seq uint64, err error) {
	o := ops.Get().(*op)
	defer o.put()
	if o.spans, err = v.reserve(ctx, int64(len(p)), o.spans[:0]); err != nil {
		return 0, err
	}
	return v.move(o, p, off, nil)
}

// move fills the reserved spans and appends them. With a guard that is refused (errMoved) when the sectors it watches
// have changed.
func (v *Volume) move(o *op, p []byte, off int64, g *guard) (seq uint64, err error) {
	for i := range o.spans {
		s := &o.spans[i]
		n := min(s.Len, int64(len(p)))
		if err := s.Seg.WriteAt(p[:n], s.Off); err != nil {
			v.log.Abandon(o.spans)
			return 0, v.failed(err)
		}
		o.recs = append(o.recs, v.record(p[:n], off))
		p, off = p[n:], off+n
	}
	return v.append(o, g)
}

// record describes whole sectors.
func (v *Volume) record(p []byte, off int64) wlog.Record {
	return wlog.Record{
		Kind: wlog.KindWrite, Flags: wlog.FlagSum, Sum: crc32.Checksum(p, castagnoli),
		First: uint64(off / v.sector), Count: uint64(int64(len(p)) / v.sector),
	}
}

// reserve takes room in the log, counting those who wait.
func (v *Volume) reserve(ctx context.Context, n int64, spans []wlog.Span) ([]wlog.Span, error) {
	if s, ok := v.log.TryReserve(n, spans); ok {
		return s, nil
	}
	v.waiting.Add(1)
	defer v.waiting.Add(-1)
	spans, err := v.log.Reserve(ctx, n, spans)
	return spans, v.failed(err)
}

// append gives the request its place in the write order and points the map at its data. It survives the death of the
// process once the log has committed seq.
func (v *Volume) append(o *op, g *guard) (seq uint64, err error) {
	o.recs[len(o.recs)-1].Flags |= wlog.FlagEnd
	seq, wake, err := v.order(o, g)
	if err != nil {
		v.log.Abandon(o.spans)
		return 0, err
	}
	if wake {
		v.startUploader()
	}
	return seq, nil
}

// order is the one moment at which the request is in the log and in the map of it.
func (v *Volume) order(o *op, g *guard) (seq uint64, wake bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.refusalLocked(g); err != nil {
		return 0, false, err
	}
	seq = v.log.Append(o.recs, o.spans)
	for i := range o.recs {
		v.placeLocked(&o.recs[i])
	}
	return seq, v.dirtyLocked(o.recs), nil
}

// refusalLocked tells why a request may not be appended. One that was under way when the volume ended must not be: Close
// has counted by then what the log holds.
func (v *Volume) refusalLocked(g *guard) error {
	if p := v.dead.Load(); p != nil {
		return *p
	}
	if g != nil && !g.standsLocked(v) {
		return errMoved
	}
	return nil
}

// placeLocked enters a record in the map of the log.
func (v *Volume) placeLocked(r *wlog.Record) {
	val := uint64(r.Seg)<<32 | uint64(r.Off)
	if r.Kind == wlog.KindZero {
		val = uint64(r.Seg)<<32 | flagZero
	}
	v.mu.m.insert(r.First, r.Count, val)
}

// dirtyLocked counts what the uploader has to do and tells whether it must be woken.
func (v *Volume) dirtyLocked(recs []wlog.Record) (wake bool) {
	before := v.mu.pending
	for i := range recs {
		if recs[i].Kind == wlog.KindWrite {
			v.mu.pending += int64(recs[i].Count) * v.sector
		}
	}
	if v.mu.dirty.IsZero() {
		v.mu.dirty = time.Now()
		wake = true
	}
	limit := v.host.Tuning.BatchBytes
	return wake || before < limit && v.mu.pending >= limit
}

// zeroStep bounds the extents one step of a discard removes from the map while the lock is held.
const zeroStep = 4096

// WriteZeroes implements frontends.Disk: partial edge sectors are written.
func (v *Volume) WriteZeroes(ctx context.Context, off, n int64) error {
	if err := v.check(off, n, true); err != nil || n == 0 {
		return err
	}
	lo, hi := (off+v.sector-1)&^(v.sector-1), (off+n)&^(v.sector-1)
	if lo > hi { // inside one sector
		return v.commit(v.writeOdd(ctx, make([]byte, n), off))
	}
	err := v.zeroBytes(ctx, off, lo)
	if err == nil {
		err = v.zero(ctx, lo, hi, 0)
	}
	if err == nil {
		err = v.zeroBytes(ctx, hi, off+n)
	}
	return err
}

// zeroBytes writes zeros to [lo, hi), less than a sector.
func (v *Volume) zeroBytes(ctx context.Context, lo, hi int64) error {
	if lo == hi {
		return nil
	}
	return v.commit(v.writeOdd(ctx, make([]byte, hi-lo), lo))
}

// Discard implements frontends.Disk: the bytes read as zeros from now on; partial edge sectors are kept.
func (v *Volume) Discard(ctx context.Context, off, n int64) error {
	if err := v.check(off, n, true); err != nil {
		return err
	}
	return v.zero(ctx, (off+v.sector-1)&^(v.sector-1), (off+n)&^(v.sector-1), wlog.FlagPunch)
}

// zero appends zero records for whole sectors. A range that holds many extents goes in bounded steps, each a request of
// its own, so that no other request waits behind the map's lock.
func (v *Volume) zero(ctx context.Context, lo, hi int64, flags uint8) error {
	first, end := uint64(lo/v.sector), uint64(hi/v.sector)
	for lo < hi && first < end {
		o := ops.Get().(*op)
		var err error
		if o.spans, err = v.reserve(ctx, 0, o.spans[:0]); err == nil {
			step := v.zeroing(first, end)
			o.recs = append(o.recs, wlog.Record{Kind: wlog.KindZero, Flags: flags, First: first, Count: step - first})
			first, err = step, v.commit(v.append(o, nil))
		}
		o.put()
		if err != nil {
			return err
		}
	}
	return nil
}

// zeroing returns how far one step of zeroing [first, end) goes, and counts it.
func (v *Volume) zeroing(first, end uint64) (step uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	step = v.mu.m.pieces(first, end, zeroStep)
	v.mu.punched += int64(step-first) * v.sector
	return step
}

var _ frontends.Ref = (*wlog.Segment)(nil)
