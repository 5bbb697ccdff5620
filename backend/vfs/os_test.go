package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDirectWrites: of a file that is written past the page cache, that holds no more than what was asked for, and Uncache
// drops it from the offset on, once. Any other is kept, and read ahead.
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
	if _, err := o.WriteAt(make([]byte, size), 0); err != nil {
		t.Fatal(err)
	}
	must(t, f.Sync())
	if o.Uncache(keep); cached(0, size) != size {
		t.Errorf("%d bytes are left of a file that was not written past the page cache since the last time", cached(0, size))
	}
	o.MixWrites()
	if o.Uncache(keep); cached(0, keep) != keep || cached(keep, size-keep) != 0 {
		t.Errorf("the second time %d bytes are left before the offset and %d after it", cached(0, keep), cached(keep, size-keep))
	}
}

// TestReadsDuringClose: a read beside Close gets the file's bytes or ErrClosed, not those of the file that has its
// descriptor's number next.
func TestReadsDuringClose(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, content byte) File {
		f, err := OS().Create(filepath.Join(dir, name))
		must(t, err)
		_, err = f.WriteAt(bytes.Repeat([]byte{content}, 4096), 0)
		must(t, err)
		return f
	}
	must(t, file("other", 'b').Close())
	for i := range 300 {
		f := file(fmt.Sprint(i), 'a')
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				p := make([]byte, 4096)
				for {
					if _, err := f.ReadAt(p, 0); errors.Is(err, os.ErrClosed) {
						return
					} else if err != nil || p[0] != 'a' {
						t.Errorf("read %q, %v", p[0], err)
						return
					}
				}
			})
		}
		must(t, f.Close())
		next, err := OS().Open(filepath.Join(dir, "other"))
		must(t, err)
		readers.Wait()
		must(t, next.Close())
	}
}

// TestReadsOfWhatIsNotCached: what the page cache has not, or only in part, is read all the same.
func TestReadsOfWhatIsNotCached(t *testing.T) {
	f, err := OS().Create(filepath.Join(t.TempDir(), "f"))
	must(t, err)
	defer f.Close()
	data := pattern(64<<10, 1)
	_, err = f.WriteAt(data, 0)
	must(t, err)
	must(t, f.Sync())
	for off := 0; off < len(data); off += 3 << 10 {
		n := min(12<<10, len(data)-off)
		must(t, unix.Fadvise(f.(*osFile).Fd(), int64(off)+4096, 8192, unix.FADV_DONTNEED))
		p := make([]byte, n)
		if _, err := f.ReadAt(p, int64(off)); err != nil || !bytes.Equal(p, data[off:off+n]) {
			t.Errorf("read of %d bytes at %d: wrong, %v", n, off, err)
		}
	}
	if n, err := f.ReadAt(make([]byte, 4096), int64(len(data))-1024); n != 1024 || err != io.EOF {
		t.Errorf("read across the end = %d, %v", n, err)
	}
}

// TestReadsLeaveNoTrace, on either descriptor.
func TestReadsLeaveNoTrace(t *testing.T) {
	f, err := OS().Create(filepath.Join(t.TempDir(), "f"))
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt(make([]byte, 4096), 0)
	must(t, err)
	o := f.(*osFile)
	for _, fd := range []int{o.Fd(), o.DirectFd()} {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NOATIME == 0 {
			t.Errorf("descriptor %d has flags %#x, %v: no O_NOATIME", fd, flags, err)
		}
	}
}
