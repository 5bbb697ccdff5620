package wlog

import (
	"slices"
	"sync"
)

// Budget bounds what the logs of a daemon hold of the local disk. Each open log is sure of two segments of the smallest
// size; the rest is shared, first come first served, a segment at a time. When it is used up a log gives up its own
// settled segments first, then the log with the most of them is asked for some, then requests wait.
//
// Its lock is a leaf: no log is called while it is held, and no log calls with its own lock held.
type Budget struct {
	total int64

	mu sync.Mutex
	// used = sum of held = shared + what the logs hold of their sure part
	shares map[*Log]*share
	left   map[string]int64 // of closed logs, by folder: their files are still there
	sure   int64            // of the open logs together
	shared int64            // held beyond the sure parts, and left
	used   int64
	queue  []*Log // waiting for a part of the rest, in order
}

type share struct{ held, sure int64 }

func (s *share) beyond() int64 { return max(0, s.held-s.sure) }

// NewBudget returns a budget of total bytes.
func NewBudget(total int64) *Budget {
	return &Budget{total: total, shares: map[*Log]*share{}, left: map[string]int64{}}
}

// Total is the bound in bytes. What logs are sure of is granted even beyond it.
func (b *Budget) Total() int64 { return b.total }

// Used is what the logs hold, in bytes.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Waiting is the number of logs with requests that wait for a part of the budget.
func (b *Budget) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue)
}

// register adds a log that holds files of n bytes.
func (b *Budget) register(l *Log, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forgetLocked(l.o.Dir)
	s := &share{sure: 2 * l.o.SegmentSize}
	b.shares[l] = s
	b.sure += s.sure
	b.addLocked(s, n)
}

func (b *Budget) forgetLocked(dir string) {
	b.used -= b.left[dir]
	b.shared -= b.left[dir]
	delete(b.left, dir)
}

func (b *Budget) addLocked(s *share, n int64) {
	b.shared -= s.beyond()
	s.held += n
	b.used += n
	b.shared += s.beyond()
}

// unregister ends a log whose files of left bytes stay on the disk.
func (b *Budget) unregister(l *Log, left int64) {
	b.mu.Lock()
	if s := b.shares[l]; s != nil {
		b.addLocked(s, -s.held)
		b.sure -= s.sure
		delete(b.shares, l)
	}
	b.forgetLocked(l.o.Dir)
	if left > 0 {
		b.left[l.o.Dir] = left
		b.used += left
		b.shared += left
	}
	b.dropLocked(l)
	b.serve()
}

// forget stops counting the files of a closed log.
func (b *Budget) forget(dir string) {
	b.mu.Lock()
	b.forgetLocked(dir)
	b.serve()
}

// take grants n bytes or reports false. Beyond its sure part a log comes after those that wait.
func (b *Budget) take(l *Log, n int64) bool {
	b.mu.Lock()
	s := b.shares[l]
	if s == nil || !b.fitsLocked(l, s, n) {
		b.mu.Unlock()
		return false
	}
	b.addLocked(s, n)
	b.dropLocked(l)
	b.serve()
	return true
}

func (b *Budget) fitsLocked(l *Log, s *share, n int64) bool {
	extra := max(0, s.held+n-s.sure) - s.beyond()
	if extra == 0 {
		return true
	}
	return (len(b.queue) == 0 || b.queue[0] == l) && b.sure+b.shared+extra <= b.total
}

// give takes n bytes back.
func (b *Budget) give(l *Log, n int64) {
	b.mu.Lock()
	if s := b.shares[l]; s != nil {
		b.addLocked(s, -n)
	}
	b.serve()
}

// wait queues a log that can make no more room by itself.
func (b *Budget) wait(l *Log) {
	b.mu.Lock()
	if !slices.Contains(b.queue, l) && b.shares[l] != nil {
		b.queue = append(b.queue, l)
	}
	b.serve()
}

// leave ends the wait of a log, if it waits.
func (b *Budget) leave(l *Log) {
	b.mu.Lock()
	if !slices.Contains(b.queue, l) {
		b.mu.Unlock()
		return
	}
	b.dropLocked(l)
	b.serve()
}

// dead is told of a log that has failed: it neither waits nor gives any more.
func (b *Budget) dead(l *Log) {
	b.mu.Lock()
	b.dropLocked(l)
	b.serve()
}

// settled is called when a log has settled segments that it could give up: somebody may wait for that.
func (b *Budget) settled() {
	b.mu.Lock()
	b.serve()
}

// short asks for space back where it is the file system that has none left.
func (b *Budget) short(l *Log) {
	b.mu.Lock()
	victim := b.victimLocked(l)
	b.mu.Unlock()
	if victim != nil {
		victim.askBack(l.o.SegmentSize)
	}
}

// serve wakes the first in the queue where there is room for it now. Otherwise it asks the log with the most settled bytes
// to give up a segment of that size, and is called again when it has: one may not be enough, where others are waiting too,
// or where logs that came later are sure of what had been given away. It unlocks mu.
func (b *Budget) serve() {
	next := b.nextLocked()
	var victim *Log
	var n int64
	if next == nil && len(b.queue) > 0 {
		victim, n = b.victimLocked(b.queue[0]), b.queue[0].o.SegmentSize
	}
	b.mu.Unlock()
	if next != nil {
		next.kick()
	} else if victim != nil {
		victim.askBack(n)
	}
}

func (b *Budget) dropLocked(l *Log) {
	if i := slices.Index(b.queue, l); i >= 0 {
		b.queue = slices.Delete(b.queue, i, i+1)
	}
}

// nextLocked is the first in the queue, if there is room for it now.
func (b *Budget) nextLocked() *Log {
	if len(b.queue) == 0 {
		return nil
	}
	l := b.queue[0]
	if !b.fitsLocked(l, b.shares[l], l.o.SegmentSize) {
		return nil
	}
	return l
}

// victimLocked is the log, another than needy, that can give up most of what it holds beyond its sure part.
func (b *Budget) victimLocked(needy *Log) *Log {
	var victim *Log
	var most int64
	for l, s := range b.shares {
		if n := min(l.reclaimable.Load(), s.beyond()); n > most && l != needy && !slices.Contains(b.queue, l) {
			victim, most = l, n
		}
	}
	return victim
}

// askBack makes the log give up settled segments of n bytes.
func (l *Log) askBack(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.giveUp = max(l.giveUp, n)
	l.kickLocked()
}
