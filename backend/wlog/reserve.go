package wlog

import (
	"context"
	"fmt"
	"slices"
)

// spreadFrom is the least that a Reserve asks for to go beside a segment that is busy. The kernel lets one write at a time
// into a file's page cache, for 20 µs where it brings 128 KiB. Small writes are done before the next one comes.
const spreadFrom = 64 << 10

// fewSyncs in the time of one segment tell a writer that streams from one that waits for the disk.
const fewSyncs = 8

// waiter is a Reserve that waits for room. It holds nothing.
type waiter struct {
	n    int64
	dst  []Span
	err  error
	done chan struct{} // closed once dst or err is final
}

// Span is a place in a segment for the data of one record, and a slot for the record. Off is a multiple of 4096; the
// Lens of one Reserve add up to exactly what was asked for, all but the last are multiples of 4096. A record fills its
// span: Count sectors are Len bytes.
type Span struct {
	Seg *Segment
	Off int64
	Len int64
}

// MaxReserve is the largest n that Reserve takes: what the two segments hold that every log is sure to get.
func (l *Log) MaxReserve() int64 { return 2 * capacity(l.o.SegmentSize) }

// Reserve appends to dst room for n bytes of data in one or more spans, each of which keeps its segment alive until
// Append or Abandon. With n = 0 it is one span of length 0, for a record without data. While the log is full it waits,
// first come first served and without limit, until ctx ends, Kill or a failure.
func (l *Log) Reserve(ctx context.Context, n int64, dst []Span) ([]Span, error) {
	l.mu.Lock()
	if out, ok := l.tryLocked(n, dst); ok {
		l.mu.Unlock()
		return out, nil
	}
	w, err := l.queueLocked(n, dst)
	l.mu.Unlock()
	if err != nil {
		return dst, err
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		l.leave(w, ctx.Err())
	}
	return w.dst, w.err
}

// TryReserve is Reserve that gives up where that would wait.
func (l *Log) TryReserve(n int64, dst []Span) ([]Span, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tryLocked(n, dst)
}

func (l *Log) tryLocked(n int64, dst []Span) ([]Span, bool) {
	if len(l.waiters) > 0 || l.err != nil || !l.started {
		return dst, false
	}
	return l.placeLocked(n, dst)
}

func (l *Log) queueLocked(n int64, dst []Span) (*waiter, error) {
	switch {
	case l.err != nil:
		return nil, l.err
	case !l.started:
		panic("wlog: reserve before start")
	case n > l.MaxReserve():
		return nil, fmt.Errorf("write log %s: reserve %d bytes: %w", l.o.Dir, n, ErrTooLarge)
	}
	w := &waiter{n: n, dst: dst, done: make(chan struct{})}
	l.waiters = append(l.waiters, w)
	l.kickLocked()
	return w, nil
}

// leave takes a waiter out of the queue, unless it was served meanwhile.
func (l *Log) leave(w *waiter, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, o := range l.waiters {
		if o == w {
			l.waiters = append(l.waiters[:i], l.waiters[i+1:]...)
			w.err = err
			l.grantLocked()
			l.kickLocked()
			return
		}
	}
}

// grantLocked serves the waiters that there is room for, in order.
func (l *Log) grantLocked() {
	for len(l.waiters) > 0 && l.err == nil {
		w := l.waiters[0]
		dst, ok := l.placeLocked(w.n, w.dst)
		if !ok {
			return
		}
		w.dst = dst
		l.waiters[0] = nil
		l.waiters = l.waiters[1:]
		close(w.done)
	}
}

// placeLocked cuts n bytes from the open and the ready segments, all or nothing.
func (l *Log) placeLocked(n int64, dst []Span) ([]Span, bool) {
	if !l.roomLocked(n) {
		return dst, false
	}
	l.spreadLocked(n)
	for left := n; ; {
		s := l.cur
		for s == nil || !s.hasSlot() || left > 0 && s.room() == 0 {
			l.nextLocked()
			s = l.cur
		}
		take := min(left, s.size-s.next)
		dst = append(dst, Span{s, s.next, take})
		s.next += roundUp(take)
		s.held++
		if left -= take; left == 0 {
			break
		}
	}
	l.topUpLocked()
	return dst, true
}

func (l *Log) roomLocked(n int64) bool {
	if n == 0 {
		return l.cur != nil && l.cur.hasSlot() || l.side != nil && l.side.hasSlot() || len(l.ready) > 0
	}
	for _, s := range [...]*Segment{l.cur, l.side} {
		if s != nil {
			n -= s.room()
		}
	}
	for i := 0; n > 0 && i < len(l.ready); i++ {
		n -= l.ready[i].room()
	}
	return n <= 0
}

// spreadLocked makes the other open segment current, or a ready one, where something is being moved into the current one.
func (l *Log) spreadLocked(n int64) {
	if n < min(spreadFrom, l.o.SegmentSize/16) || l.cur == nil || l.cur.held == 0 {
		return
	}
	if l.side == nil && len(l.ready) > 0 {
		l.side = l.takeReadyLocked()
	}
	if l.side != nil {
		l.cur, l.side = l.side, l.cur
	}
}

// nextLocked retires the current segment and makes the other open one current, or a ready one.
func (l *Log) nextLocked() {
	if l.cur != nil {
		l.bulk = l.passes < fewSyncs
		l.retireLocked(l.cur)
	}
	l.passes = 0
	if l.cur, l.side = l.side, nil; l.cur == nil {
		l.cur = l.takeReadyLocked()
	}
}

// openLocked lists the segments that take reservations.
func (l *Log) openLocked() []*Segment {
	return slices.DeleteFunc([]*Segment{l.cur, l.side}, func(s *Segment) bool { return s == nil })
}

func (l *Log) takeReadyLocked() *Segment {
	s := l.ready[0]
	l.ready = slices.Delete(l.ready, 0, 1)
	return s
}

// retireLocked ends reservations from an open segment; it is sealed when its last move ends.
func (l *Log) retireLocked(s *Segment) {
	if s == l.cur {
		l.cur = nil
	} else {
		l.side = nil
	}
	l.moving = append(l.moving, s)
	l.movedLocked(s)
}

// movedLocked seals a segment that is not open any more when its last move has ended; when the log was closed
// meanwhile, it closes the segment.
func (l *Log) movedLocked(s *Segment) {
	if s == l.cur || s == l.side || s.held > 0 {
		return
	}
	if i := slices.Index(l.moving, s); i >= 0 {
		l.moving = slices.Delete(l.moving, i, i+1)
		l.sealLocked(s)
	} else {
		go s.Release() // which takes mu
	}
}

// Abandon gives back spans that will not be appended. That may be what a settled segment was waiting for to be given up:
// no later Settle has to come.
func (l *Log) Abandon(spans []Span) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(spans) - 1; i >= 0; i-- {
		s := spans[i].Seg
		s.held--
		if end := spans[i].Off + roundUp(spans[i].Len); end == s.next && (s == l.cur || s == l.side) {
			s.next = spans[i].Off
		}
		l.movedLocked(s)
	}
	l.grantLocked()
	if len(l.waiters) > 0 {
		l.kickLocked()
	}
}
