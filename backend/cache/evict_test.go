package cache

import (
	"bytes"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/vfs"
)

// fill puts frames from..to-1, leaving the cleaner time to keep up.
func fill(t testing.TB, c *Cache, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		put(c, i)
		settle(t, c)
	}
}

func span(from, to int) (list []int) {
	for i := from; i < to; i++ {
		list = append(list, i)
	}
	return list
}

// Six segments: one is the spare, so the last five or what is left of them hold frames.
func TestFirstInFirstOut(t *testing.T) {
	c := open(t, testOptions(vfs.OS(), t.TempDir(), 6))
	fill(t, c, 0, 5*perSegment)
	if got := present(t, c, 100); !slices.Equal(got, span(0, 20)) {
		t.Errorf("full cache: %v", got)
	}
	fill(t, c, 20, 21)
	if got := present(t, c, 100); !slices.Equal(got, span(4, 21)) {
		t.Errorf("after one more: %v", got)
	}
	fill(t, c, 21, 40)
	if got := present(t, c, 100); !slices.Equal(got, span(20, 40)) {
		t.Errorf("after a whole round: %v", got)
	}
	if s := c.Stats(); s.Evicted != 20 || s.Reinserted != 0 || s.Dropped != 0 || s.Frames != 20 {
		t.Errorf("%+v", s)
	}
	checkDisk(t, c)
}

func TestReinsertion(t *testing.T) {
	c := open(t, testOptions(vfs.OS(), t.TempDir(), 6))
	fill(t, c, 0, 3)
	for range 100 {
		has(t, c, 0) // while its segment is filling: does not count
	}
	fill(t, c, 3, 5)
	for _, i := range []int{1, 2, 3} { // three of four, but no more than half a segment is kept
		has(t, c, i)
	}
	fill(t, c, 5, 21)
	if got := present(t, c, 100); !slices.Equal(got, append([]int{1, 2}, span(4, 21)...)) {
		t.Errorf("after the eviction: %v", got)
	}
	if s := c.Stats(); s.Reinserted != 2 || s.Evicted != 2 {
		t.Errorf("%+v", s)
	}
	if !has(t, c, 1) {
		t.Error("the frame that was kept can't be read")
	}
	// What was kept must be read again to be kept again.
	fill(t, c, 21, 60)
	if got := present(t, c, 100); slices.Contains(got, 1) || slices.Contains(got, 2) {
		t.Errorf("kept for ever: %v", got)
	}
	c = reopen(t, c)
	for _, i := range present(t, c, 100) {
		if !has(t, c, i) {
			t.Errorf("frame %d did not survive the restart", i)
		}
	}
}

// Damage since the frame was verified must not be copied under new sums.
func TestReinsertionVerifies(t *testing.T) {
	c := open(t, testOptions(vfs.OS(), t.TempDir(), 6))
	fill(t, c, 0, 5)
	h, _ := c.Get(key(0))
	name, off := c.mu.slots[h.f.seg].name, h.Off()
	h.Release()
	flip(t, name, off)
	fill(t, c, 5, 21)
	if s := c.Stats(); s.Damaged != 1 || s.Reinserted != 0 || c.Has(key(0)) {
		t.Errorf("%+v", s)
	}
}

// Frames that are read all the time stay, whatever goes by, and every eviction makes room even when all are.
func TestEvictionAlwaysProgresses(t *testing.T) {
	c := open(t, testOptions(vfs.OS(), t.TempDir(), 6))
	for i := range 100 {
		fill(t, c, i, i+1)
		for j := range i + 1 {
			has(t, c, j)
		}
		if !c.Has(key(i)) {
			t.Fatalf("frame %d was not kept", i)
		}
		checkDisk(t, c)
	}
	if s := c.Stats(); s.Reinserted == 0 || s.Dropped != 0 {
		t.Errorf("%+v", s)
	}
}

// The file of a held frame is not recycled, however much goes by; it is when the frame is released.
func TestHeldFrameStays(t *testing.T) {
	c := open(t, testOptions(vfs.OS(), t.TempDir(), 6))
	fill(t, c, 0, 1)
	h, _ := c.Get(key(0))
	old := h.s
	fill(t, c, 1, 60)
	if c.Has(key(0)) {
		t.Error("still in the index")
	}
	p := make([]byte, testFrame)
	if err := h.ReadAt(p, 0); err != nil || !bytes.Equal(p, content(key(0), testFrame)) {
		t.Errorf("a held frame changed: %v", err)
	}
	checkDisk(t, c)
	h.Release()
	fill(t, c, 60, 90)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.slots[old.slot] == old || c.mu.slots[old.slot] == nil || c.mu.pinned != 0 {
		t.Error("the segment was not recycled")
	}
}

// With every segment held there is no room. Puts are dropped, after a short wait for the first, and go on when the
// readers let go.
func TestAllHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, testOptions(vfs.NewCrash(), "cache", 4))
		var held []*Hit
		start := time.Now()
		for i := range 100 {
			put(c, i)
			if h, ok := c.Get(key(i)); ok {
				held = append(held, h)
			}
		}
		if waited := time.Since(start); waited > 2*maxWait {
			t.Errorf("waited %v", waited)
		}
		for _, h := range held {
			p := make([]byte, testFrame)
			if err := h.ReadAt(p, 0); err != nil || !bytes.Equal(p, content(h.f.key, testFrame)) {
				t.Errorf("a held frame changed: %v", err)
			}
			h.Release()
		}
		synctest.Wait()
		if c.Stats().Dropped == 0 {
			t.Error("nothing was dropped")
		}
		put(c, 200)
		if !has(t, c, 200) {
			t.Error("no room after the readers let go")
		}
		c.Close()
	})
}

// The file system has room for three segments only: the cache lives with them.
func TestNoSpaceToGrow(t *testing.T) {
	fault := vfs.NewFault(vfs.OS())
	files := 0
	fault.Before(func(op vfs.Op, _ string) error {
		if op != vfs.OpAllocate {
			return nil
		}
		if files == 3 {
			return vfs.ErrNoSpace
		}
		files++
		return nil
	})
	c := open(t, testOptions(fault, t.TempDir(), 8))
	fill(t, c, 0, 40)
	if got := present(t, c, 100); !slices.Equal(got, span(32, 40)) {
		t.Errorf("three segments hold %v", got)
	}
	if s := c.Stats(); s.Disk != 3*testSegment || s.Errors == 0 || s.Dropped != 0 || s.Paused {
		t.Errorf("%+v", s)
	}
	if names, _ := fault.List(c.o.Dir); len(names) != 4 {
		t.Errorf("files: %q", names)
	}
}

// After a failed write the cache does not write for a second, then goes on; reading is not affected.
func TestWriteErrorPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := vfs.NewFault(vfs.NewCrash())
		c := open(t, testOptions(fault, "cache", 6))
		put(c, 0)
		fault.Before(func(op vfs.Op, _ string) error {
			if op == vfs.OpWrite {
				return syscall.EIO
			}
			return nil
		})
		writes := fault.Count(vfs.OpWrite)
		for i := range 50 {
			put(c, 1+i)
		}
		if s := c.Stats(); !s.Paused || s.Dropped != 50 || s.Errors != 1 || s.Frames != 1 {
			t.Errorf("%+v", s)
		}
		if n := fault.Count(vfs.OpWrite) - writes; n != 1 {
			t.Errorf("%d writes although the first failed", n)
		}
		for range 100 { // a disk that stays sick: an attempt or two a second, then it is well again
			time.Sleep(retryAfter)
			put(c, 60)
			synctest.Wait()
		}
		if n := fault.Count(vfs.OpWrite) - writes; n > 250 {
			t.Errorf("%d writes in 100 s", n)
		}
		fault.Before(nil)
		time.Sleep(2 * retryAfter)
		put(c, 70)
		synctest.Wait()
		put(c, 70)
		if !has(t, c, 70) || !has(t, c, 0) {
			t.Error("did not recover")
		}
		c = reopen(t, c)
		if !has(t, c, 70) || !has(t, c, 0) {
			t.Error("frames behind a failed write are lost")
		}
		c.Close()
	})
}

// The index of a segment ends at a frame that was not written, so nothing may follow it there.
func TestFailedWriteHidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := vfs.NewFault(vfs.NewCrash())
		c := open(t, testOptions(fault, "cache", 6))
		put(c, 0)
		synctest.Wait()
		fault.Before(func(op vfs.Op, _ string) error {
			if op == vfs.OpWrite {
				return syscall.EIO
			}
			return nil
		})
		put(c, 1)
		fault.Before(nil)
		time.Sleep(retryAfter)
		put(c, 2)
		c = reopen(t, c)
		if !has(t, c, 0) || has(t, c, 1) || !has(t, c, 2) {
			t.Errorf("%v are there", present(t, c, 3))
		}
		c.Close()
	})
}

// A disk that does not answer holds up a few callers, no more, and no reader of what is there.
func TestStuckDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := vfs.NewFault(vfs.NewCrash())
		c := open(t, Options{FS: fault, Dir: "cache", Size: 8 << 20, SegmentSize: 2 << 20})
		put(c, 0)
		synctest.Wait()
		unstick := make(chan struct{})
		fault.Before(func(op vfs.Op, _ string) error {
			if op == vfs.OpWrite {
				<-unstick
			}
			return nil
		})
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() { put(c, 1+i) })
		}
		time.Sleep(10 * maxWait)
		synctest.Wait()
		if s := c.Stats(); s.Dropped < 50-maxWriters {
			t.Errorf("%d callers still wait", 50-s.Dropped)
		}
		if !has(t, c, 0) || has(t, c, 1) {
			t.Error("reading is in the way of a stuck write")
		}
		close(unstick)
		wg.Wait()
		if s := c.Stats(); s.Frames+int64(s.Dropped) != 51 {
			t.Errorf("%+v", s)
		}
		c.Close()
	})
}
