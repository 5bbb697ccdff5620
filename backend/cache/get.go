package cache

import (
	"fmt"
	"io"

	"glidefs-appliance/backend/vfs"
)

// Hit is a frame that stays where it is until Release. It belongs to the caller and must not be used afterwards.
type Hit struct {
	c *Cache
	s *segment
	f frame
}

// Get finds a frame. At the first use since Open it reads the whole frame to verify it; a damaged one is dropped and
// counted, and is a miss. Otherwise Get does not touch the disk.
func (c *Cache) Get(k Key) (*Hit, bool) {
	h, checked := c.pin(&k, !c.o.VerifyAlways)
	if h != nil && !checked && !c.check(h) {
		h.Release()
		h = nil
	}
	if h == nil {
		c.mu.Lock()
		c.mu.stats.Misses++
		c.mu.Unlock()
	}
	return h, h != nil
}

// Probe is Get for callers that must not block: only a frame that is already verified is found, and nothing counts as
// a miss.
func (c *Cache) Probe(k Key) (*Hit, bool) {
	if c.o.VerifyAlways {
		return nil, false
	}
	h, checked := c.pin(&k, true)
	if h != nil && !checked {
		h.Release()
		h = nil
	}
	return h, h != nil
}

// Has tells whether a frame is there, verified or not, without counting as a use of it.
func (c *Cache) Has(k Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	slot := c.mu.index.find(&k)
	return slot != none && !c.mu.index.slots[slot].has(flagPending) && !c.mu.closed
}

// pin holds the frame's segment. A frame that needs no check counts as used.
func (c *Cache) pin(k *Key, trust bool) (h *Hit, checked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	slot := c.mu.index.find(k)
	if slot == none || c.mu.closed {
		return nil, false
	}
	f := &c.mu.index.slots[slot]
	if f.has(flagPending) {
		return nil, false
	}
	h = c.pinLocked(f)
	checked = trust && f.has(flagVerified)
	if checked {
		c.usedLocked(f, h.s)
	}
	return h, checked
}

func (c *Cache) pinLocked(f *frame) *Hit {
	h := c.hits.Get().(*Hit)
	*h = Hit{c, c.mu.slots[f.seg], *f}
	h.s.refs++
	return h
}

func (c *Cache) usedLocked(f *frame, s *segment) {
	c.mu.stats.Hits++
	if s.full && !f.has(flagHit) {
		f.size |= flagHit
	}
}

// check verifies a pinned frame and remembers the result, unless the frame has left the segment meanwhile.
func (c *Cache) check(h *Hit) bool {
	if !c.intact(h) {
		h.damaged()
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.whereLocked(h); f != nil {
		f.size |= flagVerified
		c.usedLocked(f, h.s)
	}
	return true
}

func (c *Cache) intact(h *Hit) bool {
	buf := c.scratch.Get().(*scratch)
	defer c.scratch.Put(buf)
	_, ok := h.s.read(buf, h.f)
	return ok
}

// whereLocked finds the frame in the index if it is still where h is.
func (c *Cache) whereLocked(h *Hit) *frame {
	slot := c.mu.index.find(&h.f.key)
	if slot == none {
		return nil
	}
	f := &c.mu.index.slots[slot]
	if c.mu.slots[f.seg] != h.s || f.block != h.f.block {
		return nil
	}
	return f
}

// damaged drops the frame, unless it has left the segment meanwhile.
func (h *Hit) damaged() {
	c := h.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.whereLocked(h) != nil {
		c.mu.stats.Damaged++
		c.mu.index.drop(c.mu.index.find(&h.f.key))
	}
}

// Drop forgets a frame whose bytes turned out not to be what was Put, and counts it as damaged.
func (c *Cache) Drop(k Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slot := c.mu.index.find(&k); slot != none && !c.mu.closed {
		c.mu.stats.Damaged++
		c.mu.index.drop(slot)
	}
}

// ReadAt fills p from offset off of the frame. On an error the frame is dropped and must be fetched again.
func (h *Hit) ReadAt(p []byte, off int64) error {
	if off < 0 || off+int64(len(p)) > int64(h.Len()) {
		return fmt.Errorf("cache: read %d+%d of a frame of %d bytes: %w", off, len(p), h.Len(), io.ErrUnexpectedEOF)
	}
	n, err := h.s.file.ReadAt(p, h.Off()+off)
	if n == len(p) {
		return nil
	}
	h.damaged()
	return fmt.Errorf("cache: read frame %x/%d: %w", h.f.key.Object, h.f.key.Frame, err)
}

// File, Off and Len say where the frame's bytes are: readable there until Release, and not to be written. Off is
// a multiple of 4096.
func (h *Hit) File() vfs.File { return h.s.file }
func (h *Hit) Off() int64     { return int64(h.f.block) * blockSize }
func (h *Hit) Len() int       { return int(h.f.bytes()) }

// Release gives the frame back. It never blocks for long, and must be called once.
func (h *Hit) Release() {
	c, s := h.c, h.s
	*h = Hit{}
	c.hits.Put(h)
	c.mu.Lock()
	last := c.unrefLocked(s)
	c.mu.Unlock()
	if last {
		s.file.Close()
	}
}

// unrefLocked ends one use of a segment. After Close the caller of the last one closes the file.
func (c *Cache) unrefLocked(s *segment) (last bool) {
	s.refs--
	if s.refs > 0 {
		return false
	}
	if s.retired {
		c.mu.pinned--
		c.mu.idle = append(c.mu.idle, s)
		c.wakeCleaner()
	}
	return c.mu.shut
}
