package cache

import "time"

const (
	// maxWriters bounds how many callers a disk that does not answer can hold up.
	maxWriters = 16
	// maxWait bounds how long one Put waits for the cleaner to make room.
	maxWait = 100 * time.Millisecond
	// retryAfter is how long nothing is tried after an error, and no Put waits after one that waited in vain.
	retryAfter = time.Second
)

// Put keeps a copy of a verified frame. A frame already there is left. It writes to the page cache in the caller,
// and has no error to give: a frame that can't be kept, because too many are being written or there is no room, is
// dropped and counted. A failed write pauses the cache for a second. Data is not kept after return.
func (c *Cache) Put(k Key, data []byte) { c.put(k, data, true) }

// Offer is Put that drops the frame where that would wait for room.
func (c *Cache) Offer(k Key, data []byte) { c.put(k, data, false) }

func (c *Cache) put(k Key, data []byte, wait bool) {
	w, ok := c.reserve(k, uint32(min(len(data), MaxFrame+1)), wait)
	if !ok {
		return
	}
	defer c.puts.Done()
	buf := c.scratch.Get().(*scratch)
	err := w.s.write(buf, w.f.block, w.f.pos, k, data)
	c.scratch.Put(buf)
	c.publish(w, err)
}

// reserve gives a frame its place, waiting for one if it may. The result is a pending frame whose segment is held.
func (c *Cache) reserve(k Key, size uint32, wait bool) (w Hit, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed || size == 0 || c.mu.index.find(&k) != none {
		return w, false
	}
	if size > MaxFrame || c.geo.data+blocksOf(size) > c.geo.blocks || c.mu.writers >= maxWriters || c.pausedLocked() {
		c.mu.stats.Dropped++
		return w, false
	}
	c.puts.Add(1)
	c.mu.writers++
	if w, ok = c.placeLocked(k, size, wait); !ok {
		c.mu.writers--
		c.puts.Done()
	}
	return w, ok
}

// placeLocked lets go of the lock while it waits.
func (c *Cache) placeLocked(k Key, size uint32, wait bool) (w Hit, ok bool) {
	var timeout <-chan time.Time
	for {
		if s, block, pos, ok := c.takeLocked(size); ok {
			f := frame{key: k, seg: s.slot, block: block, pos: pos, size: size | flagPending}
			s.link(&c.mu.index, c.mu.index.add(f))
			return Hit{c, s, f}, true
		}
		if !wait || time.Now().Before(c.mu.hurryTil) {
			c.mu.stats.Dropped++
			return w, false
		}
		if timeout == nil {
			timeout = time.After(maxWait)
		}
		if !c.waitLocked(timeout) {
			c.mu.hurryTil = time.Now().Add(retryAfter)
		}
		if c.pausedLocked() {
			c.mu.stats.Dropped++
			return w, false
		}
		if c.mu.closed || c.mu.index.find(&k) != none {
			return w, false
		}
	}
}

func (c *Cache) waitLocked(timeout <-chan time.Time) bool {
	room := c.mu.room
	c.mu.Unlock()
	defer c.mu.Lock()
	select {
	case <-room:
		return true
	case <-c.stop:
	case <-timeout:
	}
	return false
}

// takeLocked gives out room for a frame in the head, or in the spare, which becomes the head. The segment is held.
func (c *Cache) takeLocked(size uint32) (s *segment, block, pos uint32, ok bool) {
	if n := len(c.mu.queue); n > 0 {
		s = c.mu.queue[n-1]
	}
	if s == nil || !s.fits(size) {
		if s != nil {
			s.full = true
		}
		s, c.mu.spare = c.mu.spare, nil
		c.wakeCleaner()
		if s == nil {
			return nil, 0, 0, false
		}
		c.mu.queue = append(c.mu.queue, s)
	}
	s.refs++
	block, pos = s.take(size)
	return s, block, pos, true
}

// publish makes a written frame readable. After an error its segment takes no more: the index would have a hole that
// hides the frames behind it from the next process.
func (c *Cache) publish(w Hit, err error) {
	c.mu.Lock()
	c.mu.writers--
	f := c.whereLocked(&w)
	switch {
	case err != nil:
		c.mu.stats.Dropped++
		w.s.full = true
		c.failedLocked()
		if f != nil {
			c.mu.index.drop(c.mu.index.find(&w.f.key))
		}
	case f != nil:
		f.size = f.bytes() | flagVerified
	}
	last := c.unrefLocked(w.s)
	c.mu.Unlock()
	if last {
		w.s.file.Close()
	}
}

func (c *Cache) pausedLocked() bool {
	return !c.mu.pausedTil.IsZero() && time.Now().Before(c.mu.pausedTil)
}

func (c *Cache) failedLocked() {
	c.mu.stats.Errors++
	c.pauseLocked()
}

// pauseLocked stops Puts for a while and sends the waiting ones away.
func (c *Cache) pauseLocked() {
	c.mu.pausedTil = time.Now().Add(retryAfter)
	c.signalLocked()
}

// signalLocked wakes the Puts that wait for room.
func (c *Cache) signalLocked() {
	close(c.mu.room)
	c.mu.room = make(chan struct{})
}
