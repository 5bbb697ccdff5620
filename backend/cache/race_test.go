package cache

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"

	"glidefs-appliance/backend/vfs"
)

// Readers, writers, scrub and eviction at once: whatever is found is right, and nothing is left held.
func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		c := open(t, testOptions(vfs.OS(), dir, 8))
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(round), uint64(g)))
				for range 400 {
					i := int(rng.ExpFloat64() * 20)
					if !has(t, c, i) {
						put(c, i)
					}
					if h, ok := c.Probe(key(rng.IntN(50))); ok {
						h.Release()
					}
				}
			})
		}
		wg.Go(func() {
			for c.Scrub(context.Background(), testFrame) {
			}
		})
		wg.Wait()
		settle(t, c)
		checkIdle(t, c)
		checkDisk(t, c)
		if s := c.Stats(); s.Evicted == 0 || s.Hits == 0 || s.Errors+s.Damaged != 0 {
			t.Errorf("%+v", s)
		}
		c.Close()
	}
}

// checkIdle holds the index against the lists of the segments.
func checkIdle(t *testing.T, c *Cache) {
	t.Helper()
	eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.kick) == 0 && c.mu.spare != nil
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	listed := 0
	for _, s := range c.mu.queue {
		if s.refs != 0 || s.retired {
			t.Errorf("segment %d: %d refs, retired %v", s.slot, s.refs, s.retired)
		}
		for i := s.first; i != none; i = c.mu.index.slots[i].next {
			if f := c.mu.index.slots[i]; f.size != 0 {
				listed++
				if c.mu.slots[f.seg] != s || f.has(flagPending) || c.mu.index.find(&f.key) != i {
					t.Errorf("slot %d: %+v", i, f)
				}
			}
		}
	}
	if listed != c.mu.index.count || c.mu.writers != 0 || c.mu.pinned != 0 {
		t.Errorf("%d frames in lists, %d in the table, %d writers, %d pinned", listed, c.mu.index.count, c.mu.writers, c.mu.pinned)
	}
}

// Close in the middle of everything.
func TestConcurrentClose(t *testing.T) {
	dir := t.TempDir()
	for range 10 {
		c := open(t, testOptions(vfs.OS(), dir, 6))
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 50 {
					put(c, 50*g+i)
					has(t, c, 50*g+i)
				}
			})
		}
		c.Close()
		wg.Wait()
	}
}
