package vfs

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDirectWrites: of a file that is written past the page cache, that holds no more than what was asked for, and Uncache
// drops it from the offset on. Any other is kept, and read ahead.
func TestDirectWrites(t *testing.T) {
	const size, keep = 8 << 20, 4 << 20
	f, err := OS().Create(filepath.Join(t.TempDir(), "segment"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, size), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	o := f.(*osFile)
	cached := func(off, n uint64) uint64 {
		var st unix.Cachestat_t
		if err := unix.Cachestat(uint(o.Fd()), &unix.CachestatRange{Off: off, Len: n}, &st, 0); err != nil {
			t.Fatal(err)
		}
		return st.Cache * 4096
	}
	readFirst := func() uint64 {
		if err := unix.Fadvise(o.Fd(), 0, 0, unix.FADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
		if _, err := o.ReadAt(make([]byte, 4096), 0); err != nil {
			t.Fatal(err)
		}
		return cached(0, size)
	}
	if o.DirectFd() == o.Fd() {
		t.Fatal("this file system has no direct I/O")
	}
	if o.Uncache(keep); cached(0, size) != size {
		t.Errorf("%d bytes are left of a file that is not written past the page cache", cached(0, size))
	}
	if n := readFirst(); n <= 4096 {
		t.Errorf("%d bytes are read ahead", n)
	}
	if _, err := o.WriteAt(make([]byte, size), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	o.MixWrites()
	if o.Uncache(keep); cached(0, keep) != keep || cached(keep, size-keep) != 0 {
		t.Errorf("%d bytes are left before the offset and %d after it", cached(0, keep), cached(keep, size-keep))
	}
	if n := readFirst(); n != 4096 {
		t.Errorf("a read of one page brought %d bytes into the page cache", n)
	}
}
