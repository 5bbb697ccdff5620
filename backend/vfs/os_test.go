package vfs

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUncache: a file that is written past the page cache is dropped from it, from the offset on; any other is kept.
func TestUncache(t *testing.T) {
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
	if o.Uncache(keep); cached(0, size) != size {
		t.Errorf("%d bytes are left of a file that is not written past the page cache", cached(0, size))
	}
	if o.DirectFd() == o.Fd() {
		t.Fatal("this file system has no direct I/O")
	}
	if o.Uncache(keep); cached(0, keep) != keep || cached(keep, size-keep) != 0 {
		t.Errorf("%d bytes are left before the offset and %d after it", cached(0, keep), cached(keep, size-keep))
	}
}
