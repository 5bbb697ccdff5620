package wlog

import (
	"cmp"
	"fmt"
	"slices"
)

// verifier follows the log from its beginning record by record.
type verifier struct {
	l     *Log
	floor uint64  // up to here every record must be whole
	tip   Barrier // the last record followed
	open  []found // of a request whose last record has not come yet; not in the log
	data  []byte  // buffer
}

// found is a record where it was found.
type found struct {
	rec Record
	seg *Segment
}

// verify finds the end of the log and drops what lies beyond, in memory. The rules are those of the package comment.
func (l *Log) verify() error {
	extents, mark, err := l.scan(l.sealed)
	if err != nil {
		return err
	}
	l.tip, l.last = l.head.base, l.head.Settled
	v := verifier{l: l, tip: l.tip, floor: max(mark, l.head.Mark)}
	if n := len(l.head.Incarnations); n > 0 {
		v.floor = max(v.floor, l.head.Incarnations[n-1].First-1)
	}
	err = walk(extents, l.tip.Seq, noLimit, v.record)
	if err != nil && err != errStop {
		return err
	}
	if l.tip.Seq < v.floor {
		return v.damage(nil, "it is missing although it was durable: records up to %d are", v.floor)
	}
	l.committed.Store(l.tip.Seq)
	l.floor = v.floor
	l.adopt(extents)
	return nil
}

// scan reads the record areas once, for the range of seqs of each segment and the newest mark. Records beyond the end
// of a closed incarnation were cut off by a Start and do not count.
func (l *Log) scan(segs []*Segment) (extents []extent, mark uint64, err error) {
	c := cursor{}
	for _, s := range segs {
		e := extent{seg: s, last: noLimit}
		if inc := l.head.byID(s.id); inc.Last != (Barrier{}) {
			e.last = inc.Last.Seq
		}
		c.seg, c.limit = s, e.last
		if err := c.load(); err != nil {
			return nil, 0, err
		}
		last := uint64(0)
		for c.next() {
			if e.first == 0 {
				e.first = c.rec.Seq
			}
			last = max(last, c.rec.Seq)
			if c.rec.Kind == KindMark {
				mark = max(mark, c.rec.First)
			}
		}
		e.last = last
		extents = append(extents, e)
	}
	return extents, mark, nil
}

// record follows the log to the next record, or stops at the end of what can be trusted. A request that the crash cut in
// two was not acknowledged; it is left out as a whole, because batches are cut at the ends of requests only, and what can't
// be uploaded must not be read either.
func (v *verifier) record(r *Record, encoded []byte, s *Segment) error {
	l, want := v.l, v.tip.Seq+1
	if r.Seq < want {
		return v.damage(s, "it is there twice")
	}
	if r.Seq > want {
		return v.gap(s, "it is missing although record %d is there", r.Seq)
	}
	inc := l.head.incarnationOf(r.Seq)
	if inc == nil || inc.ID != s.id || chain(v.tip.Chain, &inc.ID, encoded) != r.Chain {
		return v.gap(s, "its checksum does not continue that of the record before it")
	}
	if ok, err := v.trusted(r, s); !ok || err != nil {
		return cmp.Or(err, errStop)
	}
	v.tip = Barrier{inc.ID, r.Seq, r.Chain}
	v.open = append(v.open, found{*r, s})
	if r.Flags&FlagEnd != 0 || r.Kind == KindMark && len(v.open) == 1 {
		v.take()
	}
	return nil
}

// take enters the open records in the log.
func (v *verifier) take() {
	l := v.l
	for i := range v.open {
		r, s := &v.open[i].rec, v.open[i].seg
		l.tip = Barrier{s.id, r.Seq, r.Chain}
		if r.Kind != KindMark {
			l.last = l.tip
		}
		l.countLocked(r)
		if s.first == 0 {
			s.first = r.Seq
		}
		s.last = r.Seq
	}
	v.open = v.open[:0]
}

// gap is damage, unless a power cut explains it.
func (v *verifier) gap(s *Segment, format string, args ...any) error {
	if v.l.head.SameBoot || v.tip.Seq < v.floor {
		return v.damage(s, format, args...)
	}
	return errStop
}

// damage reports that the next record of the log is at fault.
func (v *verifier) damage(s *Segment, format string, args ...any) error {
	e := &DamageError{Dir: v.l.o.Dir, Seq: v.tip.Seq + 1, Reason: fmt.Sprintf(format, args...)}
	if s != nil {
		e.File = fmt.Sprintf("%08d.seg", s.number)
	}
	return e
}

// trusted tells whether the data of a record is there. After a power cut only a checksum can say that for what was not
// durable.
func (v *verifier) trusted(r *Record, s *Segment) (bool, error) {
	if v.l.head.SameBoot || r.Seq <= v.floor || r.Kind != KindWrite {
		return true, nil
	}
	if r.Flags&FlagSum == 0 {
		return false, nil
	}
	v.data = slices.Grow(v.data[:0], int(r.Len))[:r.Len]
	if err := s.ReadAt(v.data, r.DataOff()); err != nil {
		return false, err
	}
	return Sum(v.data) == r.Sum, nil
}

// adopt takes the segments into the log that hold records of it; the others are free.
func (l *Log) adopt(extents []extent) {
	l.sealed = nil
	for _, e := range extents {
		s := e.seg
		if s.first == 0 {
			l.free = append(l.free, freeFile{s.file, s.number, s.size, 0})
			continue
		}
		l.sealed = append(l.sealed, s)
		l.table.set(s.number, s)
	}
	slices.SortFunc(l.sealed, func(a, b *Segment) int { return cmp.Compare(a.last, b.last) })
	l.countReclaimableLocked()
}
