package cache

import "context"

// Scrub verifies frames that nobody has used since Open, for about budget bytes, and tells whether there are more.
// The caller decides how often it is called; a finished scrub costs nothing. Ends early with ctx.
func (c *Cache) Scrub(ctx context.Context, budget int64) (more bool) {
	for budget > 0 && ctx.Err() == nil {
		h, more := c.nextUnverified()
		if !more {
			return false
		}
		if h == nil {
			continue
		}
		budget -= int64(h.Len())
		c.scrub(h)
	}
	return true
}

func (c *Cache) scrub(h *Hit) {
	defer h.Release()
	if !c.intact(h) {
		h.damaged()
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.whereLocked(h); f != nil {
		f.size |= flagVerified
	}
}

// nextUnverified looks at some slots, so that the lock is not held for long. Slots it has passed stay verified:
// whatever is put into them later was written in this process.
func (c *Cache) nextUnverified() (h *Hit, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	slots := c.mu.index.slots
	for range dropBatch {
		if c.mu.scrubbed == len(slots) || c.mu.closed {
			return nil, false
		}
		f := &slots[c.mu.scrubbed]
		c.mu.scrubbed++
		if f.size != 0 && !f.has(flagVerified) && !f.has(flagPending) {
			return c.pinLocked(f), true
		}
	}
	return nil, true
}
