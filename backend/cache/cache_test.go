package cache

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"glidefs-appliance/backend/vfs"
)

const (
	testSegment = 64 << 10
	testFrame   = 12 << 10 // four fit into a segment
	perSegment  = 4
)

func testOptions(fsys vfs.FS, dir string, segments int64) Options {
	return Options{FS: fsys, Dir: dir, Size: segments * testSegment, SegmentSize: testSegment}
}

func open(t testing.TB, o Options) *Cache {
	t.Helper()
	c, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func reopen(t testing.TB, c *Cache) *Cache {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, c.o)
}

func key(i int) Key {
	var k Key
	binary.LittleEndian.PutUint64(k.Object[:], uint64(i/10)*0x9e3779b97f4a7c15)
	k.Frame = uint32(i % 10)
	return k
}

// content is what is put for a key: different for each.
func content(k Key, n int) []byte {
	r := rand.NewChaCha8([32]byte(append(k.Object[:], fmt.Sprintf("%016d", k.Frame)...)))
	p := make([]byte, n)
	r.Read(p)
	return p
}

func put(c *Cache, i int) { c.Put(key(i), content(key(i), testFrame)) }

// has reads a frame and fails the test if it is not what was put.
func has(t testing.TB, c *Cache, i int) bool {
	t.Helper()
	h, ok := c.Get(key(i))
	if !ok {
		return false
	}
	defer h.Release()
	p := make([]byte, h.Len())
	if err := h.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, content(key(i), len(p))) {
		t.Fatalf("frame %d holds something else", i)
	}
	return true
}

// settle waits until the cleaner has done what it can.
func settle(t testing.TB, c *Cache) {
	t.Helper()
	eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.mu.spare != nil
	})
}

func eventually(t testing.TB, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen in 10 s")
		}
	}
}

func present(t testing.TB, c *Cache, n int) (list []int) {
	for i := range n {
		if c.Has(key(i)) {
			list = append(list, i)
		}
	}
	return list
}

func TestPutGet(t *testing.T) {
	c := open(t, Options{FS: vfs.OS(), Dir: t.TempDir(), Size: 64 << 20})
	sizes := []int{1, 511, 512, 4095, 4096, 4097, 32 << 10, 128 << 10, 200_001, MaxFrame}
	for i, n := range sizes {
		c.Put(key(i), content(key(i), n))
	}
	for i, n := range sizes {
		h, ok := c.Get(key(i))
		if !ok {
			t.Fatalf("frame of %d bytes is not there", n)
		}
		if h.Len() != n || h.Off()%4096 != 0 || h.File().Fd() < 0 {
			t.Errorf("Len %d, Off %d, Fd %d for %d bytes", h.Len(), h.Off(), h.File().Fd(), n)
		}
		from := n / 3
		p, file := make([]byte, n-from), make([]byte, n-from)
		if err := h.ReadAt(p, int64(from)); err != nil {
			t.Error(err)
		}
		h.File().ReadAt(file, h.Off()+int64(from))
		if want := content(key(i), n)[from:]; !bytes.Equal(p, want) || !bytes.Equal(file, want) {
			t.Errorf("wrong bytes in the frame of %d", n)
		}
		if h.ReadAt(make([]byte, n), 1) == nil || h.ReadAt(p[:1], -1) == nil {
			t.Error("read outside of the frame")
		}
		h.Release()
	}
	if _, ok := c.Get(key(99)); ok {
		t.Error("found what was never put")
	}
	c.Put(key(98), nil)
	c.Put(key(97), make([]byte, MaxFrame+1))
	s := c.Stats()
	if s.Frames != int64(len(sizes)) || s.Hits != uint64(len(sizes)) || s.Misses != 1 || s.Dropped != 1 {
		t.Errorf("%+v", s)
	}
}

func TestPutLeavesWhatIsThere(t *testing.T) {
	c := open(t, testOptions(vfs.NewCrash(), "cache", 4))
	put(c, 1)
	c.Put(key(1), []byte("something else"))
	if !has(t, c, 1) || c.Stats().Frames != 1 {
		t.Error("the frame was replaced")
	}
}

func TestRestart(t *testing.T) {
	c := open(t, testOptions(vfs.OS(), t.TempDir(), 8))
	for round := range 20 { // so often that there are not enough segments for a new one each time
		put(c, round)
		before := c.Stats()
		c = reopen(t, c)
		if after := c.Stats(); after.Frames != before.Frames || after.Bytes != before.Bytes || after.Disk > after.Capacity {
			t.Fatalf("before %+v\nafter %+v", before, after)
		}
		for i := range round + 1 {
			if _, ok := c.Probe(key(i)); ok {
				t.Error("Probe found a frame that nobody verified yet")
			}
			if !has(t, c, i) {
				t.Errorf("frame %d is lost", i)
			}
			if h, ok := c.Probe(key(i)); !ok {
				t.Error("Probe did not find a verified frame")
			} else {
				h.Release()
			}
		}
	}
}

// After kill -9 every frame is there: nothing waits for Close.
func TestKill(t *testing.T) {
	disk := vfs.NewCrash()
	c := open(t, testOptions(disk, "cache", 8))
	for i := range 10 {
		put(c, i)
	}
	c = open(t, testOptions(disk.Kill(), "cache", 8))
	for i := range 10 {
		if !has(t, c, i) {
			t.Errorf("frame %d is lost", i)
		}
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	c := open(t, testOptions(vfs.OS(), t.TempDir(), 4))
	if _, err := Open(c.o); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("Open = %v", err)
	}
	reopen(t, c)
}

func TestClosed(t *testing.T) {
	c := open(t, testOptions(vfs.OS(), t.TempDir(), 4))
	put(c, 1)
	h, _ := c.Get(key(1))
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	put(c, 2)
	if has(t, c, 1) || has(t, c, 2) || c.Has(key(1)) {
		t.Error("a closed cache has frames")
	}
	p := make([]byte, testFrame)
	if err := h.ReadAt(p, 0); err != nil || !bytes.Equal(p, content(key(1), testFrame)) {
		t.Errorf("a held frame did not survive Close: %v", err)
	}
	file := h.File()
	h.Release()
	if _, err := file.ReadAt(p, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after the last Release: %v", err)
	}
}

func TestTooSmallKeepsNothing(t *testing.T) {
	dir := t.TempDir()
	c := open(t, testOptions(vfs.OS(), dir, 4))
	put(c, 1)
	c.Close()
	c = open(t, Options{FS: vfs.OS(), Dir: dir, Size: 0})
	put(c, 2)
	if has(t, c, 1) || has(t, c, 2) {
		t.Error("kept a frame")
	}
	if s := c.Stats(); s.Disk != 0 || s.Capacity != 0 {
		t.Errorf("%+v", s)
	}
}

func TestSegmentSizes(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for _, test := range []struct{ size, segment, want int64 }{
		{0, 0, 0}, {255, 0, 0}, {256 << 10, 0, 64 << 10}, {4 * mib, 0, 256 << 10}, {gib, 0, 64 * mib}, {64 * gib, 0, 64 * mib},
		{1024 * gib, 0, 512 * mib}, {gib, 8 * mib, 8 * mib}, {gib, gib, gib / 4}, {mib, 100_000, 98304},
	} {
		if got := segmentSize(Options{Size: test.size, SegmentSize: test.segment}); got != test.want {
			t.Errorf("Size %d, SegmentSize %d: segments of %d, want %d", test.size, test.segment, got, test.want)
		}
	}
}

// A cache that is given less room, or other segments, keeps what it can and stays within its bound.
func TestResize(t *testing.T) {
	dir := t.TempDir()
	c := open(t, testOptions(vfs.OS(), dir, 8))
	for i := range 7 * perSegment {
		put(c, i)
		settle(t, c)
	}
	c.Close()
	c = open(t, testOptions(vfs.OS(), dir, 5))
	if s := c.Stats(); s.Disk > 5*testSegment || s.Frames < 3*perSegment {
		t.Errorf("%+v", s)
	}
	if !has(t, c, 7*perSegment-1) {
		t.Error("the newest frame is lost")
	}
	c.Close()
	o := testOptions(vfs.OS(), dir, 5)
	o.SegmentSize = testSegment / 2
	c = open(t, o)
	for i := range 40 {
		put(c, 100+i)
		settle(t, c)
		checkDisk(t, c)
	}
	if !has(t, c, 139) || c.Stats().Errors > 0 {
		t.Error("segments of another size are in the way")
	}
}

// checkDisk holds the files against the bound.
func checkDisk(t testing.TB, c *Cache) {
	t.Helper()
	entries, err := os.ReadDir(c.o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			sum += info.Size()
		}
	}
	if s := c.Stats(); sum > c.o.Size || s.Disk > s.Capacity {
		t.Fatalf("%d bytes on disk, %d allowed: %+v", sum, c.o.Size, s)
	}
}

func TestGarbageIsWiped(t *testing.T) {
	dir := t.TempDir()
	c := open(t, testOptions(vfs.OS(), dir, 8))
	for i := range 3 * perSegment {
		put(c, i)
	}
	settle(t, c)
	c.Close()
	frames, _ := filepath.Glob(filepath.Join(dir, "*"+suffix))
	foreign := frames[0]
	writeAt(t, foreign, 8, []byte{version + 1})
	for name, data := range map[string]string{"empty": "", "text": strings.Repeat("garbage ", 1000)} {
		if err := os.WriteFile(filepath.Join(dir, name+suffix), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"+suffix), 0o700); err != nil {
		t.Fatal(err)
	}
	notes := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(notes, []byte("somebody's"), 0o600); err != nil {
		t.Fatal(err)
	}
	c = open(t, c.o)
	if s := c.Stats(); s.Wiped != 4 {
		t.Errorf("%+v", s)
	}
	if _, err := os.Stat(foreign); !errors.Is(err, os.ErrNotExist) {
		t.Error("a file of another version is still there")
	}
	if _, err := os.Stat(notes); err != nil {
		t.Error("removed a file that is not ours")
	}
	for i := range 3 * perSegment {
		has(t, c, i)
		put(c, i)
		if !has(t, c, i) {
			t.Errorf("frame %d can't be kept", i)
		}
	}
}

func writeAt(t testing.TB, name string, off int64, p []byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}

func flip(t testing.TB, name string, off int64) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	writeAt(t, name, off, []byte{data[off] ^ 4})
}

// A bit that changes while the cache is closed costs frames, never gives wrong ones, whatever it belonged to.
func TestFlippedBits(t *testing.T) {
	const index, data, all = blockSize, 2 * blockSize, perSegment
	const entry = entryFix + 4*testFrame/blockSize
	for _, test := range []struct {
		name         string
		off          int64
		left, broken int
	}{
		{"magic", 0, 0, 0}, {"version", 8, 0, 0}, {"life", 17, 0, 0}, {"header crc", 33, 0, 0}, {"padding", 40, all, 0},
		{"first key", index, 0, 0}, {"first length", index + 21, 0, 0}, {"first sum", index + 24, 0, 0},
		{"second frame number", index + entry + 16, 1, 0}, {"last crc", index + all*entry - 1, all - 1, 0},
		{"end of the index", index + all*entry, all, 0},
		{"first byte", data, all - 1, 1}, {"last byte of the first", data + testFrame - 1, all - 1, 1},
		{"second", data + testFrame, all - 1, 1}, {"last byte", data + all*testFrame - 1, all - 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := open(t, testOptions(vfs.OS(), t.TempDir(), 4))
			for i := range all {
				put(c, i)
			}
			name := c.mu.queue[0].name
			c.Close()
			flip(t, name, test.off)
			c = open(t, c.o)
			left := 0
			for i := range all {
				if has(t, c, i) {
					left++
				}
			}
			if s := c.Stats(); left != test.left || s.Damaged != uint64(test.broken) || s.Frames != int64(left) {
				t.Errorf("%d frames left: %+v", left, s)
			}
			put(c, 0)
			if !has(t, c, 0) {
				t.Error("can't be put again")
			}
		})
	}
}

func TestVerifyAlways(t *testing.T) {
	o := testOptions(vfs.OS(), t.TempDir(), 4)
	o.VerifyAlways = true
	c := open(t, o)
	put(c, 1)
	if !has(t, c, 1) {
		t.Fatal("not there")
	}
	if _, ok := c.Probe(key(1)); ok {
		t.Error("Probe promised a verified frame")
	}
	h, _ := c.Get(key(1))
	name, off := c.mu.slots[h.f.seg].name, h.Off()
	h.Release()
	flip(t, name, off+5000)
	if _, ok := c.Get(key(1)); ok {
		t.Error("a damaged frame was given out")
	}
	if s := c.Stats(); s.Damaged != 1 || s.Frames != 0 {
		t.Errorf("%+v", s)
	}
	put(c, 1)
	if !has(t, c, 1) {
		t.Error("can't be put again")
	}
}

// A frame that was damaged and put again is there twice; the newer copy counts, also for the next process.
func TestTwoCopies(t *testing.T) {
	c := open(t, testOptions(vfs.OS(), t.TempDir(), 4))
	put(c, 0)
	h, _ := c.Get(key(0))
	name, off := c.mu.slots[h.f.seg].name, h.Off()
	h.Release()
	flip(t, name, off)
	c = reopen(t, c)
	if has(t, c, 0) {
		t.Fatal("damage not noticed")
	}
	put(c, 0)
	put(c, 1)
	c = reopen(t, c)
	if !has(t, c, 0) || !has(t, c, 1) || c.Stats().Damaged != 0 || c.Stats().Frames != 2 {
		t.Errorf("%v are there: %+v", present(t, c, 2), c.Stats())
	}
}

// A check that fails after the frame has gone says nothing about the copy that was put since.
func TestCheckOfAnOldCopy(t *testing.T) {
	fault := vfs.NewFault(vfs.NewCrash())
	c := open(t, testOptions(fault, "cache", 6))
	fill(t, c, 0, 5)
	c = reopen(t, c)
	entered, release := make(chan struct{}), make(chan struct{})
	fault.Before(func(op vfs.Op, _ string) error {
		if op != vfs.OpRead {
			return nil
		}
		close(entered)
		<-release
		return errors.New("EIO")
	})
	missed := make(chan bool)
	go func() {
		h, ok := c.Get(key(0))
		if ok {
			h.Release()
		}
		missed <- !ok
	}()
	<-entered
	fill(t, c, 5, 30)
	if c.Has(key(0)) {
		t.Fatal("not evicted")
	}
	put(c, 0)
	close(release)
	if !<-missed || !c.Has(key(0)) || c.Stats().Damaged != 0 {
		t.Errorf("the new copy was dropped for the old one: %+v", c.Stats())
	}
}

// A frame that can't be read is dropped, so that the caller's next try fetches it.
func TestReadError(t *testing.T) {
	fault := vfs.NewFault(vfs.NewCrash())
	c := open(t, testOptions(fault, "cache", 4))
	put(c, 1)
	h, _ := c.Get(key(1))
	eio := errors.New("EIO")
	fault.Before(func(op vfs.Op, _ string) error {
		if op == vfs.OpRead {
			return eio
		}
		return nil
	})
	if err := h.ReadAt(make([]byte, 10), 0); !errors.Is(err, eio) {
		t.Errorf("ReadAt = %v", err)
	}
	h.Release()
	if _, ok := c.Get(key(1)); ok || c.Stats().Damaged != 1 {
		t.Error("still there")
	}
}

func TestScrub(t *testing.T) {
	c := open(t, testOptions(vfs.OS(), t.TempDir(), 8))
	for i := range 10 {
		put(c, i)
	}
	if c.Scrub(context.Background(), 1<<30) {
		t.Error("frames of this process are to be verified")
	}
	h, _ := c.Get(key(7))
	name, off := c.mu.slots[h.f.seg].name, h.Off()
	h.Release()
	c.Close()
	flip(t, name, off)
	c = open(t, c.o)
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	if !c.Scrub(canceled, 1<<30) || c.mu.scrubbed != 0 {
		t.Error("a canceled scrub went on")
	}
	for steps := 1; c.Scrub(context.Background(), 2*testFrame); steps++ {
		if steps > 6 {
			t.Fatal("no end")
		}
	}
	if s := c.Stats(); s.Damaged != 1 || s.Frames != 9 || s.Hits != 0 {
		t.Errorf("%+v", s)
	}
	for i := range 10 {
		if h, ok := c.Probe(key(i)); ok != (i != 7) {
			t.Errorf("frame %d: verified %v", i, ok)
		} else if ok {
			h.Release()
		}
	}
}
