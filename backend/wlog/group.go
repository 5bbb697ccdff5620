package wlog

// GroupWrite is a write that is to survive a power cut and leaves it to whoever leads the next flush to append it: many such
// writes then cost one pwrite of their data, not one each, which the kernel lets into a file one after the other.
type GroupWrite struct {
	Data []byte // stays the caller's
	Off  int64  // on the disk, in bytes
	// Seq of its last record or Err, why there is none: set by Options.AppendGroup.
	Seq uint64
	Err error
}

// FlushGrouped has the next flush append w and returns once w.Err is set, or what was appended survives a power cut. It
// returns the error that stopped the log.
func (l *Log) FlushGrouped(w *GroupWrite) error {
	l.mu.Lock()
	l.ahead = l.writeAhead
	l.queued = append(l.queued, w)
	pass := l.syncing.begun + 1
	for l.syncing.ended.Load() < pass {
		next := pass > l.syncing.begun
		switch {
		case l.err != nil && next: // nobody will take it any more
			defer l.mu.Unlock()
			return l.err
		case l.syncing.running:
			if l.syncing.wait(next); l.syncing.ended.Load() >= pass {
				return l.endGrouped(w)
			}
			l.mu.Lock()
		default:
			l.syncPassLocked()
		}
	}
	l.mu.Unlock()
	return l.endGrouped(w)
}

// endGrouped tells how a pass ended for w.
func (l *Log) endGrouped(w *GroupWrite) error {
	if w.Err != nil || l.durable.Load() >= w.Seq && w.Seq != 0 {
		return nil
	}
	if err := l.Failed(); err != nil {
		return err
	}
	panic("wlog: a flush ended without what it had taken")
}

// appendGroupLocked has the queued writes appended. It drops and retakes mu.
func (l *Log) appendGroupLocked() {
	if len(l.queued) == 0 || l.err != nil {
		return
	}
	group := l.queued
	l.queued, l.spare = l.spare[:0], nil
	l.mu.Unlock()
	l.o.AppendGroup(group)
	l.mu.Lock()
	clear(group)
	l.spare = group
}
