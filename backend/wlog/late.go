package wlog

// Late is a write that is to survive a power cut and leaves it to whoever leads the next flush to append it: many such
// writes then cost one pwrite of their data, not one each, which the kernel lets into a file one after the other.
type Late struct {
	Data []byte // stays the caller's
	Off  int64  // on the disk, in bytes
	// Seq of its last record or Err, why there is none: set by Options.AppendLate.
	Seq uint64
	Err error
}

// FlushLate has the next flush append w and returns once w.Err is set, or what was appended survives a power cut. It
// returns the error that stopped the log.
func (l *Log) FlushLate(w *Late) error {
	l.mu.Lock()
	l.ahead = l.writeAhead
	l.late = append(l.late, w)
	pass := l.syncing.begun + 1
	for l.syncing.ended.Load() < pass {
		next := pass > l.syncing.begun
		switch {
		case l.err != nil && next: // nobody will take it any more
			defer l.mu.Unlock()
			return l.err
		case l.syncing.running:
			if l.syncing.wait(next); l.syncing.ended.Load() >= pass {
				return l.endLate(w)
			}
			l.mu.Lock()
		default:
			l.syncPassLocked()
		}
	}
	l.mu.Unlock()
	return l.endLate(w)
}

// endLate tells how a pass ended for w.
func (l *Log) endLate(w *Late) error {
	if w.Err != nil || l.durable.Load() >= w.Seq && w.Seq != 0 {
		return nil
	}
	if err := l.Failed(); err != nil {
		return err
	}
	panic("wlog: a flush ended without what it had taken")
}

// appendLateLocked has the late writes appended. It drops and retakes mu.
func (l *Log) appendLateLocked() {
	if len(l.late) == 0 || l.err != nil {
		return
	}
	group := l.late
	l.late, l.spare = l.spare[:0], nil
	l.mu.Unlock()
	l.o.AppendLate(group)
	l.mu.Lock()
	clear(group)
	l.spare = group
}
