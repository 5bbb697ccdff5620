package cache

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"
)

// load builds the index from what the last process left. Called by Open, before anything else can use c, so it does
// its I/O without a thought for the lock.
func (c *Cache) load() error {
	names, err := c.o.FS.List(c.o.Dir)
	if err != nil {
		return err
	}
	var found []*segment
	for _, base := range names {
		if !strings.HasSuffix(base, suffix) {
			continue
		}
		name := filepath.Join(c.o.Dir, base)
		if s := c.openSegment(name, uint32(len(found))); s != nil {
			found = append(found, s)
		} else {
			c.mu.stats.Wiped++
			_ = c.o.FS.Remove(name)
		}
	}
	c.mu.slots = slices.Clone(found)
	slices.SortFunc(found, func(a, b *segment) int { return cmp.Compare(a.seq, b.seq) })
	for _, s := range found {
		c.takeOver(s)
	}
	c.fitSize()
	c.pickHead()
	return nil
}

// openSegment returns nil for a file that is no segment of this version.
func (c *Cache) openSegment(name string, slot uint32) *segment {
	f, err := c.o.FS.Open(name)
	if err != nil {
		return nil
	}
	p := make([]byte, headerLen)
	if readFull(f, p, 0) {
		if h, ok := decodeHeader(p); ok {
			return newSegment(f, name, slot, h)
		}
	}
	f.Close()
	return nil
}

// takeOver puts a segment's frames into the index. Of two copies of a frame the one in the newer segment counts: it
// stays longer.
func (c *Cache) takeOver(s *segment) {
	c.mu.disk += s.geo.size()
	c.mu.seq = max(c.mu.seq, s.seq)
	x := &c.mu.index
	s.scan(func(k Key, size uint32) {
		if old := x.find(&k); old != none {
			x.drop(old)
		}
		block, pos := s.take(size)
		s.link(x, x.add(frame{key: k, seg: s.slot, block: block, pos: pos, size: size}))
	})
	if s.first == none {
		s.retired = true
		c.mu.idle = append(c.mu.idle, s)
	} else {
		s.full = true
		c.mu.queue = append(c.mu.queue, s)
	}
}

// fitSize removes files until the rest is within Size: it may be smaller than the last time.
func (c *Cache) fitSize() {
	for c.mu.disk > c.o.Size {
		if len(c.mu.idle) == 0 {
			for s := c.mu.queue[0]; !s.retired; {
				c.thinLocked(s, nil)
			}
		}
		s := c.mu.idle[0]
		c.mu.idle = c.mu.idle[1:]
		c.forgetLocked(s)
		c.removeFile(s.file, s.name)
	}
}

// pickHead goes on filling the newest segment: a daemon that is restarted often would otherwise use up one each time.
func (c *Cache) pickHead() {
	if n := len(c.mu.queue); n > 0 && c.mu.queue[n-1].geo == c.geo {
		c.mu.queue[n-1].full = false
	}
}
