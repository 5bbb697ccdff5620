package wlog

import (
	"errors"
	"time"

	"glidefs-appliance/backend/vfs"
)

const (
	// recycleBatch is how many segments at most are evicted and recycled together: they share one rewrite of the head.
	recycleBatch = 4
	// streamReady is how much is kept ready for a writer that streams, in bytes, of a log of some size: small segments
	// are full sooner than the next one has been recycled, which takes a sync.
	streamReady = 32 << 20
	// retryFull is how often a log tries again on a full file system while somebody waits.
	retryFull = time.Second
)

// errBudget: the budget gives no more. Only the maintenance sees it.
var errBudget = errors.New("log budget is used up")

// kick makes the maintenance goroutine look at the log; it ends when there is nothing to do.
func (l *Log) kick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kickLocked()
}

func (l *Log) kickLocked() {
	l.again, l.starved = true, false
	if l.maint || l.closed || !l.started || l.err != nil {
		return
	}
	l.maint = true
	l.wg.Go(func() { l.o.Contain(l.maintain) })
}

// topUpLocked asks for more ready segments ahead of need, but not again and again when there are none to be had.
func (l *Log) topUpLocked() {
	if !l.maint && !l.starved && l.shortLocked() > 0 {
		l.kickLocked()
	}
}

// shortLocked is the number of ready segments that are missing: none for a log that is hardly used.
func (l *Log) shortLocked() int {
	want := 0
	if s := l.cur; s != nil && (s.next-dataStart(s.size) > capacity(s.size)/2 || s.used > s.slots()/2) {
		want = 1
		if len(l.sealed) >= 4 {
			want = 2
		}
	}
	short := want - len(l.ready)
	if l.bulk && len(l.sealed) >= 4 && l.readyLocked() < min(streamReady, l.bytes/16) {
		short = max(short, 1)
	}
	if len(l.waiters) > 0 {
		short = max(short, 1)
	}
	return short
}

func (l *Log) readyLocked() (n int64) {
	for _, s := range l.ready {
		n += s.size
	}
	return n
}

func (l *Log) maintain() {
	for {
		l.mu.Lock()
		l.again = false
		l.mu.Unlock()
		reason := l.supply()
		if err := l.shed(); reason == nil {
			reason = err
		}
		l.report(reason)
		l.mu.Lock()
		if !l.again || l.closed || l.err != nil {
			l.maint = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
	}
}

// supply makes ready segments until there are enough. It returns why it could not: errBudget, vfs.ErrNoSpace, or the
// error that has stopped the log.
func (l *Log) supply() error {
	for {
		batch, done := l.supplyStep()
		if done {
			return nil
		}
		var err error
		if len(batch) > 0 {
			err = l.recycle(batch)
		} else if err = l.create(); isFull(err) && l.evictOldest() {
			err = nil
		}
		if err != nil {
			return err
		}
	}
}

// supplyStep serves the waiters and takes dead segments to be recycled if there are not enough ready ones.
func (l *Log) supplyStep() (batch []freeFile, done bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.grantLocked()
	if l.err != nil || l.closed || l.shortLocked() <= 0 {
		return nil, true
	}
	n := min(recycleBatch, len(l.free))
	batch = append(batch, l.free[:n]...)
	l.free = append(l.free[:0], l.free[n:]...)
	return batch, false
}

func isFull(err error) bool { return errors.Is(err, errBudget) || errors.Is(err, vfs.ErrNoSpace) }

// evictOldest gives up the oldest sealed segments whose records the store holds, a few at once where there are many. It
// reports false when there is none, or when enough are dying already and wait for their last reader.
func (l *Log) evictOldest() bool {
	batch := l.pickVictims()
	for _, s := range batch {
		l.evict(s)
	}
	return len(batch) > 0
}

func (l *Log) pickVictims() []*Segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dying >= recycleBatch {
		return nil
	}
	n := l.settledCountLocked()
	if n == 0 && l.retireSettledLocked() {
		n = 1
	}
	n = min(n, recycleBatch, 1+n/8)
	batch := append([]*Segment(nil), l.sealed[:n]...)
	l.sealed = append(l.sealed[:0], l.sealed[n:]...)
	l.dying += n
	l.countReclaimableLocked()
	return batch
}

// settledCountLocked is the number of sealed segments at the front of the list that the store has.
func (l *Log) settledCountLocked() int {
	for i, s := range l.sealed {
		if s.last > l.head.base.Seq {
			return i
		}
	}
	return len(l.sealed)
}

// retireSettledLocked seals an open segment for the sake of a waiter that needs more than is left.
func (l *Log) retireSettledLocked() bool {
	if len(l.waiters) == 0 {
		return false
	}
	for _, s := range l.openLocked() {
		touched := s.used > 0 || s.next > dataStart(s.size)
		if touched && s.held == 0 && s.last <= l.head.base.Seq {
			l.retireLocked(s)
			return true
		}
	}
	return false
}

// lifeEnded takes back the file of a segment that nobody can find or reads any more.
func (l *Log) lifeEnded(s *Segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = s.file.Close()
		return
	}
	l.dying--
	if s.surplus && len(l.waiters) == 0 {
		l.giveUp += s.size
	}
	l.free = append(l.free, freeFile{s.file, s.number, s.size, s.last})
	l.countReclaimableLocked()
	l.kickLocked()
}

// shed deletes settled segments until the budget has got what it asked for, or there are none.
func (l *Log) shed() error {
	for {
		f, wanted := l.takeSurplus()
		switch {
		case !wanted:
			return nil
		case f.file != nil:
			if err := l.discard(f); err != nil {
				return err
			}
		case !l.evictOldest():
			return l.shedLater()
		}
	}
}

// takeSurplus takes a dead or a ready segment to be deleted, if the budget wants one. Requests that wait here come first;
// what the budget asked for is remembered.
func (l *Log) takeSurplus() (f freeFile, wanted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiters) > 0 || l.giveUp <= 0 {
		return f, false
	}
	if n := len(l.free); n > 0 {
		f, l.free = l.free[n-1], l.free[:n-1]
	} else if n := len(l.ready); n > 0 {
		s := l.ready[n-1]
		l.ready = l.ready[:n-1]
		l.table.set(s.number, nil)
		f = freeFile{s.file, s.number, s.size, 0}
	}
	l.giveUp -= f.size
	l.countReclaimableLocked()
	return f, true
}

// shedLater forgets what could not be given, unless a reader will end a life soon.
func (l *Log) shedLater() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dying == 0 {
		l.giveUp = 0
	}
	return nil
}

// report tells Full and the budget how the waiters stand.
func (l *Log) report(reason error) {
	l.mu.Lock()
	waiting := len(l.waiters)
	l.starved = reason != nil && !l.again
	if reason == nil || l.err != nil {
		waiting = 0
	}
	full := noRoom(reason)
	l.stopRetryLocked()
	if waiting > 0 && full {
		l.retry = time.AfterFunc(retryFull, l.tryAgain)
	}
	changed := waiting != l.reported || waiting > 0 && full != l.reportedFull
	l.reported, l.reportedFull = waiting, full
	l.mu.Unlock()
	if waiting > 0 && errors.Is(reason, errBudget) {
		l.o.Budget.wait(l)
	} else {
		l.o.Budget.leave(l)
	}
	if changed && full && waiting > 0 {
		l.o.Full(waiting, reason)
	} else if changed {
		l.o.Full(waiting, nil)
	}
}

// tryAgain asks another log for space as well. It is not done each time that there is none: two logs would keep each other
// awake.
func (l *Log) tryAgain() {
	l.o.Budget.short(l)
	l.kick()
}

func (l *Log) stopRetryLocked() {
	if l.retry != nil {
		l.retry.Stop()
		l.retry = nil
	}
}
