package ublk

import (
	"os"
	"path/filepath"
	"testing"

	"glidefs-appliance/frontends"

	"golang.org/x/sys/unix"
)

// TestFromMemory: only extents that the page cache has whole are read from there.
func TestFromMemory(t *testing.T) {
	const n = 256 << 10
	f, err := os.Create(filepath.Join(t.TempDir(), "segment"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	fd, direct := int(f.Fd()), 12345
	try := func(off, n int64, want bool) {
		t.Helper()
		e := []frontends.Extent{{FD: -1, Direct: -1, Len: 4096}, {FD: fd, Direct: direct, Off: off, Len: n}}
		if all := fromMemory(e); all != want || (e[1].Direct == fd) != want || e[0].Direct != -1 {
			t.Errorf("%d+%d: all of it %v, read from %+v", off, n, all, e)
		}
	}
	try(0, n, true)
	try(512, 1024, true)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	// A folio is dropped as a whole, however large: so drop all, and read some again without reading ahead.
	for _, advice := range []int{unix.FADV_DONTNEED, unix.FADV_RANDOM} {
		if err := unix.Fadvise(fd, 0, 0, advice); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.ReadAt(make([]byte, 64<<10), 0); err != nil {
		t.Fatal(err)
	}
	try(0, 64<<10, true)
	try(0, n, false)
	try(192<<10, 512, false)
	try(n-4096, 4096, false)
	if !fromMemory([]frontends.Extent{{FD: -1, Direct: -1, Len: 4096}}) {
		t.Error("zeros are not in memory")
	}
	e := []frontends.Extent{{FD: fd, Direct: direct, Off: n - 4096, Len: 4096}, {FD: fd, Direct: direct, Len: 4096}}
	if fromMemory(e) || e[0].Direct != direct || e[1].Direct != fd {
		t.Errorf("one is in memory and one is not: %+v", e)
	}
}
