package wlog

import (
	"fmt"
	"math"
	"slices"
)

// lazyMark is how many records a flush lets pass without a mark when it could do without: a segment of blocks of 4 KiB
// has a slot to spare for about that many.
const lazyMark = 64

// Flush returns once everything appended before the call survives a power cut. Callers share one pass: it serves all
// that came before it began. After a failure it returns the same error for ever.
func (l *Log) Flush() error {
	l.mu.Lock()
	l.ahead = l.writeAhead
	return l.flush(l.last.Seq)
}

// FlushThrough is Flush for whoever needs no more than the records up to seq, and does not wait for it: it is no sign
// that more flushes will come.
func (l *Log) FlushThrough(seq uint64) error {
	l.mu.Lock()
	return l.flush(seq)
}

// flush drops mu.
func (l *Log) flush(seq uint64) error {
	for l.err == nil && l.durable.Load() < seq {
		if !l.syncing.running {
			l.syncPassLocked()
			continue
		}
		if l.syncing.wait(seq > l.syncing.through); l.durable.Load() >= seq {
			return nil
		}
		l.mu.Lock()
	}
	defer l.mu.Unlock()
	return l.err
}

// syncPassLocked makes everything appended so far durable. It drops and retakes mu.
func (l *Log) syncPassLocked() {
	l.syncing.gather()
	l.syncing.begin(math.MaxUint64) // what comes until its end is settled is a part of it
	l.appendGroupLocked()
	if l.err == nil {
		l.passLocked()
	}
	l.syncing.end()
}

// passLocked drops and retakes mu.
func (l *Log) passLocked() {
	if l.durable.Load() >= l.marked+lazyMark {
		l.markLocked(l.durable.Load())
	}
	l.passes++
	through := l.tip.Seq
	l.syncing.through = through
	marked, durable := l.unsummed <= l.durable.Load(), through
	err := l.syncThroughLocked(through)
	if err == nil && !marked {
		durable, err = l.markDurablyLocked(through)
	}
	// A background sync may have failed on a file that this pass found clean: then l.err says so.
	if err != nil {
		l.failLocked(err)
	} else if l.err == nil {
		l.durable.Store(durable)
	}
}

// syncThroughLocked syncs each segment with records up to through. It drops and retakes mu.
func (l *Log) syncThroughLocked(through uint64) error {
	if err := l.commitLocked(through); err != nil {
		return err
	}
	l.dirty = slices.DeleteFunc(l.dirty, func(s *Segment) bool {
		s.queued = s.synced < s.last
		return !s.queued
	})
	l.syncs = append(l.syncs[:0], l.dirty...)
	defer clear(l.syncs)
	for _, s := range l.syncs {
		if err := l.syncSegmentLocked(s, min(s.last, through)); err != nil {
			return err
		}
	}
	return nil
}

// syncSegmentLocked makes the records of s up to through, which are committed, and their data durable. It drops and
// retakes mu. After one failed fdatasync the kernel may report the next one as done, so the failure is final before
// syncMu is free.
func (l *Log) syncSegmentLocked(s *Segment, through uint64) error {
	l.mu.Unlock()
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	l.mu.Lock()
	if l.err != nil || s.synced >= through {
		return l.err
	}
	l.mu.Unlock()
	err := s.file.Sync()
	l.mu.Lock()
	if err != nil {
		l.failLocked(fmt.Errorf("write log %s: segment %d: %w", l.o.Dir, s.number, err))
		return l.err
	}
	s.synced = max(s.synced, through)
	return nil
}

// markLocked queues a mark record for a seq that is durable already. It reports false where no slot is free: a mark is
// never worth a new segment.
func (l *Log) markLocked(seq uint64) bool {
	if s := l.cur; s == nil || s.used+s.held >= s.slots() {
		return false
	}
	r := Record{Kind: KindMark, First: seq}
	l.appendLocked(&r, l.cur)
	l.marked = seq
	return true
}

// markDurablyLocked makes it durable that everything up to seq is: by a mark record, or by the head where there is no
// room for one. It returns the seq that is durable then, which is the mark's own when nothing came between. It drops and
// retakes mu.
func (l *Log) markDurablyLocked(seq uint64) (uint64, error) {
	if !l.markLocked(seq) {
		l.mu.Unlock()
		defer l.mu.Lock()
		return seq, l.writeHead(seq, false)
	}
	mark := l.tip.Seq
	if err := l.syncThroughLocked(mark); err != nil || mark != seq+1 {
		return seq, err
	}
	return mark, nil
}

// writeAhead bounds what a Flush may find unwritten, in bytes of sealed segments. A writer that flushes has each segment
// on the disk soon after it was sealed; one that has not flushed since that many bytes gets as far ahead of the disk as
// that. [128 KiB writes without a flush were half as fast while the disk was written beside them.]
const writeAhead = 1 << 30

// sealLocked takes a segment that no record will come to any more.
func (l *Log) sealLocked(s *Segment) {
	i, _ := slices.BinarySearchFunc(l.sealed, s.last, func(o *Segment, last uint64) int {
		if o.last < last {
			return -1
		}
		return 1
	})
	l.sealed = slices.Insert(l.sealed, i, s)
	if s.last <= s.synced || l.err != nil || l.closed {
		return
	}
	l.toSync = append(l.toSync, s)
	l.ahead = max(0, l.ahead-s.size)
	if !l.flusher && l.behindLocked() {
		l.flusher = true
		l.wg.Go(func() { l.o.Contain(l.syncSealed) })
	}
}

// behindLocked tells whether sealed segments should go to the disk now, and forgets those that a Flush has taken there.
func (l *Log) behindLocked() bool {
	var n int64
	l.toSync = slices.DeleteFunc(l.toSync, func(s *Segment) bool {
		if s.synced >= s.last {
			return true
		}
		n += s.size
		return false
	})
	return n > 0 && (l.ahead > 0 || n > l.writeAhead)
}

// syncSealed runs in the background while there are sealed segments to sync, the oldest first.
func (l *Log) syncSealed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.err == nil && l.behindLocked() {
		s := l.toSync[0]
		l.mu.Unlock()
		s.file.WriteBack(0, s.size)
		l.mu.Lock()
		if l.commitLocked(s.last) == nil {
			_ = l.syncSegmentLocked(s, s.last) // made final by it
		}
	}
	l.flusher = false
}
