package frontendtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"glidefs-appliance/frontends"

	"golang.org/x/sys/unix"
)

func testGeometry(t *testing.T, s suite) {
	b := newBed(t, s, 5*mib)
	h := open(t, b.path, 0)
	if n, err := h.size(); err != nil || n != 5*mib {
		t.Errorf("size %d, %v; want %d", n, err, 5*mib)
	}
	if h.block && h.sector != int64(s.sector) {
		t.Errorf("logical block size %d, want %d", h.sector, s.sector)
	}
	b.check(h) // never written: zeros
}

// spans are ranges that meet every kind of edge: of a sector, a page, a request, the disk.
func spans(size int64, sector int64) [][2]int64 {
	return [][2]int64{
		{0, 1}, {1, 1}, {sector - 1, 2}, {sector, sector}, {sector + 1, sector}, {3*sector - 1, 2*sector + 2},
		{4096, 4096}, {4095, 4098}, {100_000, 128 << 10}, {128 << 10, 128<<10 + 1}, {mib - 3, mib + 7},
		{size - 1, 1}, {size - sector - 1, sector + 1}, {777, 3*mib + 5},
	}
}

func random(n int64) []byte {
	p := alignedBuf(int(n))
	rand.Read(p)
	return p
}

func testAnywhere(t *testing.T, s suite) {
	b := newBed(t, s, 5*mib)
	h := open(t, b.path, 0)
	for _, r := range spans(5*mib, int64(s.sector)) {
		p := random(r[1])
		copy(b.model[r[0]:], p)
		if n, err := h.WriteAt(p, r[0]); err != nil {
			t.Fatalf("write %v: %d, %v", r, n, err)
		}
		if n, err := h.ReadAt(p, r[0]); err != nil {
			t.Fatalf("read %v: %d, %v", r, n, err)
		}
		b.check(h)
	}
}

func testDirect(t *testing.T, s suite) {
	b := newBed(t, s, 5*mib)
	h := open(t, b.path, unix.O_DIRECT)
	sec := int64(s.sector)
	for _, r := range [][2]int64{{0, sec}, {sec, sec}, {4096, 4096}, {128 << 10, 128 << 10}, {mib, mib}, {2*mib - sec, 2*mib + 2*sec}, {5*mib - sec, sec}} {
		p := random(r[1])
		copy(b.model[r[0]:], p)
		if n, err := h.WriteAt(p, r[0]); err != nil {
			t.Fatalf("write %v: %d, %v", r, n, err)
		}
		b.equalDisk() // without a sync: a direct write has arrived when it returns
		clear(p)
		if n, err := h.ReadAt(p, r[0]); err != nil || string(p) != string(b.model[r[0]:r[0]+r[1]]) {
			t.Fatalf("read %v: %d, %v, or other bytes than written", r, n, err)
		}
	}
	b.check(h)
}

func (b *bed) equalDisk() {
	b.t.Helper()
	got := make([]byte, len(b.model))
	if err := b.spy.Disk.ReadAt(context.Background(), got, 0); err != nil {
		b.t.Fatal(err)
	}
	b.equal("disk", got)
}

func testFlush(t *testing.T, s suite) {
	b := newBed(t, s, mib)
	h := open(t, b.path, 0)
	for name, sync := range map[string]func(int) error{"fsync": unix.Fsync, "fdatasync": unix.Fdatasync} {
		if _, err := h.WriteAt([]byte("x"), 5000); err != nil {
			t.Fatal(err)
		}
		before := b.spy.Flushes.Load()
		if err := sync(int(h.Fd())); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if b.spy.Flushes.Load() == before {
			t.Errorf("%s did not flush the disk", name)
		}
	}
}

// testFUA: the kernel may send a FUA write or a write and a flush.
func testFUA(t *testing.T, s suite) {
	b := newBed(t, s, mib)
	for _, flags := range []int{unix.O_DSYNC, unix.O_SYNC, unix.O_DSYNC | unix.O_DIRECT} {
		h := open(t, b.path, flags)
		before := b.spy.FUA.Load() + b.spy.Flushes.Load()
		if _, err := h.WriteAt(random(4096), 8192); err != nil {
			t.Fatal(err)
		}
		if b.spy.FUA.Load()+b.spy.Flushes.Load() == before {
			t.Errorf("a write with flags %#x was neither FUA nor flushed", flags)
		}
	}
	h, before := open(t, b.path, unix.O_DIRECT), b.spy.FUA.Load()
	if _, err := h.WriteAt(random(4096), 8192); err != nil {
		t.Fatal(err)
	}
	if b.spy.FUA.Load() != before {
		t.Error("a plain write was FUA")
	}
}

func testDiscard(t *testing.T, s suite) {
	testClear(t, s, (*handle).discard, func(b *bed) int64 { return b.spy.Discards.Load() })
}

func testZeroes(t *testing.T, s suite) {
	testClear(t, s, (*handle).zero, func(b *bed) int64 { return b.spy.Zeroes.Load() })
}

// testClear fills the disk, clears ranges and finds zeros there and everything else as it was.
func testClear(t *testing.T, s suite, op func(h *handle, off, n int64) error, count func(*bed) int64) {
	b := newBed(t, s, 5*mib)
	h := open(t, b.path, 0)
	off, n := int64(0), int64(len(b.model))
	for _, r := range append(spans(5*mib, int64(s.sector)), [2]int64{0, 5 * mib}) {
		rand.Read(b.model[off : off+n]) // what the round before cleared
		if _, err := h.WriteAt(b.model[off:off+n], off); err != nil {
			t.Fatal(err)
		}
		if err := h.Sync(); err != nil {
			t.Fatal(err)
		}
		off, n = h.align(r[0], r[1])
		if err := op(h, off, n); err != nil {
			t.Fatalf("[%d, +%d): %v", off, n, err)
		}
		clear(b.model[off : off+n])
		b.check(h)
	}
	if count(b) == 0 {
		t.Error("the disk never saw it")
	}
}

func testEnd(t *testing.T, s suite) {
	b := newBed(t, s, mib)
	h := open(t, b.path, 0)
	p := random(8192)
	if n, err := h.ReadAt(p, mib); n != 0 || err != io.EOF {
		t.Errorf("read beyond the end: %d, %v; want EOF", n, err)
	}
	if n, err := h.ReadAt(p, mib-4096); n != 4096 || err != io.EOF {
		t.Errorf("read across the end: %d, %v; want 4096, EOF", n, err)
	}
	if n, err := h.WriteAt(p, mib); n != 0 || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("write beyond the end: %d, %v; want ENOSPC", n, err)
	}
	rand.Read(p)
	// One call, not WriteAt, which goes on after a short count and forgets it when the rest fails.
	if n, err := unix.Pwrite(int(h.Fd()), p, mib-4096); n != 4096 || err != nil {
		t.Errorf("write across the end: %d, %v; want 4096", n, err)
	}
	copy(b.model[mib-4096:], p)
	if err := h.discard(mib, 4096); !errors.Is(err, unix.EINVAL) {
		t.Errorf("discard beyond the end: %v; want EINVAL", err)
	}
	b.check(h)
}

// readOnly is a disk that says so.
type readOnly struct{ frontends.Disk }

func (readOnly) ReadOnly() bool                                     { return true }
func (readOnly) WriteAt(context.Context, []byte, int64, bool) error { return frontends.ErrReadOnly }
func (readOnly) Discard(context.Context, int64, int64) error        { return frontends.ErrReadOnly }
func (readOnly) WriteZeroes(context.Context, int64, int64) error    { return frontends.ErrReadOnly }

func testReadOnly(t *testing.T, s suite) {
	d := s.disk(t, mib, s.sector)
	want := random(mib)
	if err := d.WriteAt(context.Background(), want, 0, false); err != nil {
		t.Fatal(err)
	}
	path := s.serve(t, readOnly{d})
	if f, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
		_, err = f.WriteAt(want[:4096], 0)
		if err = errors.Join(err, f.Sync()); err == nil {
			t.Error("a read-only disk took a write")
		}
		f.Close()
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != string(want) {
		t.Errorf("read: %d bytes, %v, or other bytes", len(got), err)
	}
}

func testErrors(t *testing.T, s suite) {
	b := newBed(t, s, mib)
	h := open(t, b.path, unix.O_DIRECT)
	p := random(4096)
	ops := map[string]func() error{
		"read":    func() error { _, err := h.ReadAt(p, 0); return err },
		"write":   func() error { _, err := h.WriteAt(p, 0); return err },
		"discard": func() error { return h.discard(0, 4096) },
		"flush":   func() error { return h.Sync() },
	}
	for name, op := range ops {
		b.spy.Hook(func(_ context.Context, op string) error {
			if op == name {
				return fmt.Errorf("%s: %w", op, errInjected)
			}
			return nil
		})
		if err := op(); !errors.Is(err, unix.EIO) {
			t.Errorf("failed %s: %v, want EIO", name, err)
		}
	}
	b.spy.Hook(nil)
	if _, err := h.WriteAt(p, 0); err != nil {
		t.Errorf("write after the failures: %v", err)
	}
}
