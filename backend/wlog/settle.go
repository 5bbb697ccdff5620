package wlog

import (
	"errors"
	"fmt"
)

var errStop = errors.New("stop")

// Settle says that the store holds everything up to b, which a Flush has made durable here. Segments that end there
// become cache that may be given up at any time. The head learns of it before one is.
func (l *Log) Settle(b Barrier) error {
	l.settleMu.Lock()
	defer l.settleMu.Unlock()
	s, err := l.survey(b)
	if err != nil {
		return err
	}
	l.mu.Lock()
	if b.Seq > l.durable.Load() {
		defer l.mu.Unlock()
		return fmt.Errorf("write log %s: settle %d: only %d is durable", l.o.Dir, b.Seq, l.durable.Load())
	}
	l.settleLocked(b, s)
	l.kickLocked()
	l.mu.Unlock()
	l.o.Budget.settled()
	return nil
}

// surveyed is what lies between the old barrier and a new one.
type surveyed struct {
	// base is the new barrier, or the last of the marks that follow it directly: else a full log could wait for ever for
	// a segment that holds nothing but one of them.
	base   Barrier
	bytes  int64
	writes uint64
}

// survey reads the records from the settled barrier to b and checks that b is one of them.
func (l *Log) survey(b Barrier) (surveyed, error) {
	l.mu.Lock()
	from, old := l.head.base, l.head.Settled
	segs, through := l.extentsLocked(), l.committed.Load()
	l.mu.Unlock()
	s := surveyed{base: from}
	if b.samePlace(old) {
		return s, nil
	}
	found := false
	err := walk(segs, from.Seq, through, func(r *Record, _ []byte, _ *Segment) error {
		if r.Seq > b.Seq && r.Kind != KindMark {
			return errStop
		}
		s.base = l.barrierOf(r)
		s.bytes += int64(r.Len)
		if r.Flags&FlagEnd != 0 {
			s.writes++
		}
		found = found || r.Seq == b.Seq && r.Chain == b.Chain
		return nil
	})
	if err != nil && err != errStop {
		return s, fmt.Errorf("write log %s: settle %d: %w", l.o.Dir, b.Seq, err)
	}
	if !found {
		return s, fmt.Errorf("write log %s: settle %d: no such record after %d", l.o.Dir, b.Seq, from.Seq)
	}
	return s, nil
}

func (l *Log) settleLocked(b Barrier, s surveyed) {
	if !b.samePlace(l.head.Settled) {
		l.head.Settled = b
	}
	l.head.base = s.base
	l.dirtyBytes -= s.bytes
	l.dirtyWrites -= s.writes
	l.countReclaimableLocked()
}

// countReclaimableLocked tells the budget what could be had here: nothing while there is no maintenance that would give it.
func (l *Log) countReclaimableLocked() {
	if l.err != nil || !l.started {
		return
	}
	var n int64
	for _, s := range l.sealed {
		if s.last <= l.head.base.Seq {
			n += s.size
		}
	}
	for i := range l.free {
		n += l.free[i].size
	}
	l.reclaimable.Store(n)
}

// extentsLocked lists the segments with the range of seqs each holds now.
func (l *Log) extentsLocked() []extent {
	segs := make([]extent, 0, len(l.sealed)+len(l.moving)+2)
	for _, list := range [...][]*Segment{l.sealed, l.moving, l.openLocked()} {
		for _, s := range list {
			segs = append(segs, extent{s, s.first, s.last, s.used})
		}
	}
	return segs
}

// barrierOf names the record as a barrier.
func (l *Log) barrierOf(r *Record) Barrier {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.barrierOfLocked(r)
}

func (l *Log) barrierOfLocked(r *Record) Barrier {
	b := Barrier{Seq: r.Seq, Chain: r.Chain}
	if inc := l.head.incarnationOf(r.Seq); inc != nil {
		b.Log = inc.ID
	}
	return b
}

// Contains tells whether b is the settled barrier or a later record of this log. The id in b is that of the record's
// incarnation or of a later one, which may upload what an earlier one wrote.
func (l *Log) Contains(b Barrier) bool {
	l.mu.Lock()
	segs, settled, through := l.extentsLocked(), l.head.Settled, l.committed.Load()
	own, named := l.head.incarnationOf(b.Seq), l.head.byID(b.Log)
	l.mu.Unlock()
	if b.samePlace(settled) {
		return b.Log == settled.Log || named != nil
	}
	if own == nil || named == nil || named.First < own.First || b.Seq <= settled.Seq || b.Seq > through {
		return false
	}
	found := false
	err := walk(segs, b.Seq-1, b.Seq, func(r *Record, _ []byte, _ *Segment) error {
		found = r.Chain == b.Chain && r.Kind != KindMark
		return nil
	})
	return err == nil && found
}

func (b Barrier) samePlace(o Barrier) bool { return b.Seq == o.Seq && b.Chain == o.Chain }

// Records calls fn for the committed records after seq after, in seq order, marks left out; those up to Head().Settled
// are left out too. The segment stays alive during the call of fn. It reads the files: nothing of it is in memory. One that
// the disk has lost is a DamageError.
func (l *Log) Records(after uint64, fn func(Record, *Segment) error) error {
	l.mu.Lock()
	segs, through := l.extentsLocked(), l.committed.Load()
	last := max(after, l.head.base.Seq)
	l.mu.Unlock()
	lost := func() error {
		return &DamageError{Dir: l.o.Dir, Seq: last + 1, Reason: "it was written and is not there any more"}
	}
	err := walk(segs, last, through, func(r *Record, _ []byte, s *Segment) error {
		if r.Seq != last+1 {
			return lost()
		}
		if last = r.Seq; r.Kind == KindMark {
			return nil
		}
		return fn(*r, s)
	})
	if err == nil && last < through {
		err = lost()
	}
	if err != nil {
		return fmt.Errorf("write log %s: %w", l.o.Dir, err)
	}
	return nil
}

// DropThrough forgets the records up to seq, which the store holds: after a reboot only later ones are kept. Before
// Start only.
func (l *Log) DropThrough(seq uint64) error {
	var b Barrier
	l.mu.Lock()
	segs, from := l.extentsLocked(), l.head.base.Seq
	l.mu.Unlock()
	if seq <= from {
		return nil
	}
	err := walk(segs, seq-1, seq, func(r *Record, _ []byte, _ *Segment) error {
		b = l.barrierOf(r)
		return nil
	})
	if err != nil {
		return fmt.Errorf("write log %s: drop through %d: %w", l.o.Dir, seq, err)
	}
	s, err := l.survey(b)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settleLocked(b, s)
	l.freeSettledLocked()
	return nil
}
