package cache

import (
	"slices"
	"time"
)

const (
	// maxPinned is how many retired segments may be held by readers before the cleaner stops evicting more: a reader
	// that never lets go costs its segment, not the cache.
	maxPinned = 2
	// dropBatch bounds the frames dropped under one hold of the lock.
	dropBatch = 512
)

// clean keeps a spare segment ready, until Close.
func (c *Cache) clean() {
	defer c.cleaner.Done()
	for {
		select {
		case <-c.stop:
			return
		case <-c.kick:
		}
		for step := c.plan(); step != nil; step = c.plan() {
			step()
		}
	}
}

func (c *Cache) wakeCleaner() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// plan chooses the next step towards a spare: nil when there is one or none can be had now.
func (c *Cache) plan() func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed || c.mu.spare != nil || c.geo.blocks == 0 || c.pausedLocked() {
		return nil
	}
	if len(c.mu.idle) > 0 {
		s := c.mu.idle[0]
		c.mu.idle = c.mu.idle[1:]
		return func() { c.recycle(s) }
	}
	if c.mu.disk+c.geo.size() <= c.o.Size && time.Now().After(c.mu.growAfter) {
		return c.grow
	}
	if c.mu.pinned >= maxPinned {
		return nil // the next Release wakes us
	}
	if q := c.mu.queue; len(q) > 1 || len(q) == 1 && q[0].full {
		s := q[0]
		return func() { c.evict(s) }
	}
	c.pauseLocked()
	return nil
}

// grow adds a file. When that fails the cache lives with the files it has; space is asked for again in a while.
func (c *Cache) grow() {
	f, name, err := c.makeFile()
	c.mu.Lock()
	if err != nil {
		c.mu.stats.Errors++
		c.mu.growAfter = time.Now().Add(retryAfter)
		c.mu.Unlock()
		return
	}
	slot := slices.Index(c.mu.slots, nil)
	if slot < 0 {
		slot = len(c.mu.slots)
		c.mu.slots = append(c.mu.slots, nil)
	}
	s := newSegment(f, name, uint32(slot), header{blocks: c.geo.blocks})
	s.retired = true
	c.mu.slots[slot] = s
	c.mu.disk += s.geo.size()
	c.mu.idle = append(c.mu.idle, s)
	c.mu.Unlock()
}

// recycle makes an unused file the spare. One that does not take writes, or has not the right size any more, goes.
func (c *Cache) recycle(old *segment) {
	if old.geo != c.geo {
		c.discard(old)
		return
	}
	c.mu.Lock()
	c.mu.seq++
	seq := c.mu.seq
	c.mu.Unlock()
	s, err := c.begin(old.file, old.name, old.slot, seq)
	if err != nil {
		c.discard(old)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failedLocked()
		return
	}
	c.mu.slots[s.slot] = s
	c.mu.spare = s
	c.mu.hurryTil = time.Time{}
	c.signalLocked()
}

func (c *Cache) discard(s *segment) {
	c.removeFile(s.file, s.name)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetLocked(s)
}

func (c *Cache) forgetLocked(s *segment) {
	c.mu.slots[s.slot] = nil
	c.mu.disk -= s.geo.size()
}

// evict retires a segment after moving the frames that were used to the head.
func (c *Cache) evict(s *segment) {
	buf := c.scratch.Get().(*scratch)
	defer c.scratch.Put(buf)
	budget := (s.geo.blocks - s.geo.data) / 2
	for {
		c.mu.Lock()
		if c.mu.closed {
			c.mu.Unlock()
			return
		}
		slot, done := c.thinLocked(s, &budget)
		var f frame
		if slot != none {
			f = c.mu.index.slots[slot]
		}
		c.mu.Unlock()
		if slot != none {
			c.move(s, slot, f, buf)
		}
		if done {
			return
		}
	}
}

// thinLocked takes frames off the segment's list, oldest first, and drops them, some at a time. It stops at one that
// is to be moved, which stays in the table and can be read meanwhile. An empty segment is retired.
func (c *Cache) thinLocked(s *segment, budget *uint32) (move uint32, done bool) {
	x := &c.mu.index
	for range dropBatch {
		slot := s.first
		if slot == none {
			c.retireLocked(s)
			return none, true
		}
		f := &x.slots[slot]
		s.first = f.next
		if n := blocksOf(f.bytes()); budget != nil && f.has(flagHit) && n <= *budget {
			*budget -= n
			return slot, false
		}
		if f.size != 0 {
			x.drop(slot)
			c.mu.stats.Evicted++
		}
		x.release(slot)
	}
	return none, false
}

func (c *Cache) retireLocked(s *segment) {
	i := slices.Index(c.mu.queue, s)
	c.mu.queue = slices.Delete(c.mu.queue, i, i+1)
	s.retired, s.full = true, true
	if s.refs > 0 {
		c.mu.pinned++
	} else {
		c.mu.idle = append(c.mu.idle, s)
	}
}

// move copies a frame, in a slot that is in no list, from a segment that is going to the head. It is verified on the
// way, or its new sums would vouch for damaged data. It does not wait for room: the eviction is what makes room.
func (c *Cache) move(from *segment, slot uint32, f frame, buf *scratch) {
	data, intact := from.read(buf, f)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !intact {
		c.mu.stats.Damaged++
		c.dropLocked(slot)
		return
	}
	to, block, pos, ok := c.takeLocked(f.bytes())
	if !ok {
		c.mu.stats.Evicted++
		c.dropLocked(slot)
		return
	}
	c.mu.Unlock()
	err := to.write(buf, block, pos, f.key, data)
	c.mu.Lock()
	c.unrefLocked(to) // never the last use after Close, which waits for the cleaner before it closes files
	if err != nil {
		to.full = true
		c.failedLocked()
	}
	now := &c.mu.index.slots[slot]
	if err != nil || now.size == 0 {
		c.dropLocked(slot)
		return
	}
	now.seg, now.block, now.pos, now.size = to.slot, block, pos, f.bytes()|flagVerified
	to.link(&c.mu.index, slot)
	c.mu.stats.Reinserted++
}

// dropLocked frees a slot that is in no list, whether it is still in the table or not.
func (c *Cache) dropLocked(slot uint32) {
	if c.mu.index.slots[slot].size != 0 {
		c.mu.index.drop(slot)
	}
	c.mu.index.release(slot)
}
