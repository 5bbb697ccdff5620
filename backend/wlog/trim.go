package wlog

// Trim gives up the settled segments that dead tells of, whatever their age, and deletes their files, unless requests
// wait for room: then these take them. dead is called with a lock held; Evict is called for each. It does not wait for
// readers.
func (l *Log) Trim(dead func(number uint32) bool) {
	for _, s := range l.pickDead(dead) {
		l.evict(s)
	}
	l.kick()
}

func (l *Log) pickDead(dead func(number uint32) bool) (batch []*Segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil || l.closed || !l.started {
		return nil
	}
	n := l.settledCountLocked()
	kept := l.sealed[:0]
	for i, s := range l.sealed {
		if i < n && dead(s.number) {
			batch = append(batch, s)
			s.surplus = true
		} else {
			kept = append(kept, s)
		}
	}
	clear(l.sealed[len(kept):])
	l.sealed = kept
	l.dying += len(batch)
	l.countReclaimableLocked()
	return batch
}

// evict ends the log's own reference to a segment that is in no list any more.
func (l *Log) evict(s *Segment) {
	l.o.Evict(s)
	l.mu.Lock()
	l.table.set(s.number, nil)
	l.mu.Unlock()
	s.Release()
}
