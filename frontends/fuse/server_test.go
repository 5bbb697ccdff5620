package fuse

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"glidefs-appliance/frontends/frontendtest"

	"golang.org/x/sys/unix"
)

const mib = 1 << 20

// eventually polls a condition that the kernel brings about.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("not in 10 s: %s", what)
		}
	}
}

func openFile(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func expired() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestFilesLookLikeDisks(t *testing.T) {
	s := mount(t, Options{})
	add(t, s, "a", frontendtest.NewMemDisk(3*mib, 4096))
	if _, err := s.Add("snap", frontendtest.NewMemDisk(mib, 512), true); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		size int64
		mode fs.FileMode
	}{"a": {3 * mib, 0o600}, "snap": {mib, 0o400}} {
		fi, err := os.Stat(filepath.Join(s.Dir(), name))
		if err != nil || fi.Size() != want.size || fi.Mode() != want.mode {
			t.Errorf("%s: %v, %v; want size %d, mode %v", name, fi, err, want.size, want.mode)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.Dir(), &st); err != nil || st.Bsize != 4096 || st.Frsize != 4096 {
		t.Errorf("statfs: bsize %d, frsize %d, %v; a loop device takes its discard granularity from these", st.Bsize, st.Frsize, err)
	}
}

func TestRefusals(t *testing.T) {
	s := mount(t, Options{})
	path := add(t, s, "a", frontendtest.NewMemDisk(mib, 4096))
	for _, name := range []string{"", ".", "..", ".hidden", "a/b", "nul\x00"} {
		if _, err := s.Add(name, frontendtest.NewMemDisk(mib, 4096), false); err == nil {
			t.Errorf("Add(%q) succeeded", name)
		}
	}
	if _, err := s.Add("a", frontendtest.NewMemDisk(mib, 4096), false); !errors.Is(err, ErrExists) {
		t.Errorf("second Add: %v", err)
	}
	if err := os.Truncate(path, 5); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncate: %v, want EPERM", err)
	}
	if err := os.Truncate(path, mib); err != nil {
		t.Errorf("truncate to the same size: %v", err)
	}
	if err := os.Chmod(path, 0o666); !errors.Is(err, unix.EPERM) {
		t.Errorf("chmod: %v, want EPERM", err)
	}
	if err := os.Remove(path); err == nil {
		t.Error("a user removed the disk's file")
	}
	f := openFile(t, path, os.O_RDWR)
	if err := unix.Fallocate(int(f.Fd()), 0, 0, 4096); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("fallocate without a mode: %v, want EOPNOTSUPP", err)
	}
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE, mib-4096, 8192); !errors.Is(err, unix.EINVAL) {
		t.Errorf("zero range that would make the file longer: %v, want EINVAL", err)
	}
	if off, err := f.Seek(5, unix.SEEK_DATA); off != 5 || err != nil {
		t.Errorf("SEEK_DATA from 5: %d, %v", off, err)
	}
	if off, err := f.Seek(5, unix.SEEK_HOLE); off != mib || err != nil {
		t.Errorf("SEEK_HOLE from 5: %d, %v", off, err)
	}
	if err := s.Remove(expired(), "none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Remove of nothing: %v", err)
	}
}

func TestRemoveWaitsForTheLastClose(t *testing.T) {
	s := mount(t, Options{})
	path := add(t, s, "a", frontendtest.NewMemDisk(mib, 4096))
	f := openFile(t, path, os.O_RDWR)
	if n := s.OpenCount("a"); n != 1 {
		t.Errorf("open count %d, want 1", n)
	}
	if err := s.Remove(expired(), "a"); !errors.Is(err, ErrBusy) {
		t.Errorf("Remove while open: %v, want ErrBusy", err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); err != nil {
		t.Errorf("write after a refused Remove: %v", err)
	}
	removed := make(chan error)
	go func() { removed <- s.Remove(t.Context(), "a") }()
	f.Close()
	if err := <-removed; err != nil {
		t.Errorf("Remove after the close: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	add(t, s, "a", frontendtest.NewMemDisk(2*mib, 4096))
	if fi, err := os.Stat(path); err != nil || fi.Size() != 2*mib {
		t.Errorf("a new export of that name: %v, %v", fi, err)
	}
}

func TestEvictedHandlesGetEIO(t *testing.T) {
	s := mount(t, Options{})
	spy := frontendtest.Watch(frontendtest.NewMemDisk(mib, 4096))
	path := add(t, s, "a", spy)
	f := openFile(t, path, os.O_RDWR)
	inside := make(chan struct{})
	spy.Hook(func(ctx context.Context, op string) error {
		close(inside)
		select { // a write that waits for log space
		case <-ctx.Done():
		case <-t.Context().Done(): // a process that waits for its own FUSE file can't even be killed
		}
		return ctx.Err()
	})
	wrote := make(chan error)
	go func() {
		_, err := unix.Pwrite(int(f.Fd()), []byte("x"), 0) // os.File would try again after EINTR
		wrote <- err
	}()
	<-inside
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Evict(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	spy.Hook(func(context.Context, string) error { t.Error("the disk was used after Evict"); return nil })
	if err := <-wrote; !errors.Is(err, unix.EIO) {
		t.Errorf("waiting write: %v, want EIO", err)
	}
	if _, err := f.ReadAt(make([]byte, 10), 0); !errors.Is(err, unix.EIO) {
		t.Errorf("read: %v, want EIO", err)
	}
	if err := f.Sync(); !errors.Is(err, unix.EIO) {
		t.Errorf("fsync: %v, want EIO", err)
	}
	if _, err := os.Open(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open: %v, want not exist", err)
	}
	f.Close()
	eventually(t, "the node is forgotten", func() bool { return s.export(firstNode) == nil })
}

func TestResizeIsSeenAtOnce(t *testing.T) {
	s := mount(t, Options{})
	d := frontendtest.NewMemDisk(mib, 4096)
	f := openFile(t, add(t, s, "a", d), os.O_RDWR)
	if _, err := f.Stat(); err != nil {
		t.Fatal(err)
	}
	d.Grow(5 * mib)
	if err := s.Resize("a"); err != nil {
		t.Fatal(err)
	}
	if n, err := f.Seek(0, 2); n != 5*mib || err != nil {
		t.Errorf("size %d, %v; want %d", n, err, 5*mib)
	}
	if _, err := f.WriteAt(make([]byte, mib), 4*mib); err != nil {
		t.Errorf("write into the new part: %v", err)
	}
}

func TestPanicFencesOneExport(t *testing.T) {
	fenced := make(chan string, 1)
	s := mount(t, Options{Logger: slog.New(slog.DiscardHandler), OnPanic: func(name string, _ any, _ []byte) { fenced <- name }})
	spy := frontendtest.Watch(frontendtest.NewMemDisk(mib, 4096))
	sick, well := openFile(t, add(t, s, "sick", spy), os.O_RDWR), openFile(t, add(t, s, "well", frontendtest.NewMemDisk(mib, 4096)), os.O_RDWR)
	spy.Hook(func(context.Context, string) error { panic("broken invariant") })
	if _, err := sick.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EIO) {
		t.Errorf("the write that panicked: %v, want EIO", err)
	}
	if name := <-fenced; name != "sick" {
		t.Errorf("fenced %q", name)
	}
	spy.Hook(nil)
	if _, err := sick.ReadAt(make([]byte, 1), 0); !errors.Is(err, unix.EIO) {
		t.Errorf("read of the fenced export: %v, want EIO", err)
	}
	if _, err := well.WriteAt([]byte("x"), 0); err != nil {
		t.Errorf("the other export: %v", err)
	}
	if err := s.Evict(t.Context(), "sick"); err != nil {
		t.Errorf("Evict of the fenced export: %v", err)
	}
}

func TestUnmountWithOpenFiles(t *testing.T) {
	s, err := Mount(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := openFile(t, add(t, s, "a", frontendtest.NewMemDisk(mib, 4096)), os.O_RDWR)
	if err := s.Unmount(); err != nil {
		t.Fatal(err)
	}
	if names, err := os.ReadDir(s.Dir()); err != nil || len(names) != 0 {
		t.Errorf("the folder after unmount: %v, %v", names, err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EIO) {
		t.Errorf("write: %v, want EIO", err)
	}
	f.Close()
	s.Wait()
}

func TestManyExports(t *testing.T) {
	const n = 1000
	s := mount(t, Options{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()
	disk := frontendtest.NewMemDisk(4096, 4096)
	for i := range n {
		add(t, s, fmt.Sprintf("disk%04d", i), disk)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if per := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n; per > 2048 {
		t.Errorf("an idle export costs %d bytes", per)
	}
	if g := runtime.NumGoroutine() - goroutines; g > 10 {
		t.Errorf("%d goroutines for idle exports", g)
	}
	names, err := os.ReadDir(s.Dir())
	if err != nil || len(names) != n || names[n-1].Name() != "disk0999" {
		t.Errorf("listing: %d names, %v", len(names), err)
	}
	for i := range n {
		remove(t, s, fmt.Sprintf("disk%04d", i))
	}
	if names, err := os.ReadDir(s.Dir()); err != nil || len(names) != 0 {
		t.Errorf("listing after removal: %d names, %v", len(names), err)
	}
}

// TestSharedMapping: another process maps the file. Our own would hang when the collector stops the world while a goroutine
// waits for a page that only we can give.
func TestSharedMapping(t *testing.T) {
	s := mount(t, Options{})
	d := frontendtest.NewMemDisk(mib, 4096)
	if out, err := child("map", add(t, s, "a", d)).Output(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := make([]byte, 6)
	if err := d.ReadAt(t.Context(), got, 8000); err != nil || string(got) != "mapped" {
		t.Errorf("the disk holds %q, %v", got, err)
	}
}

// writeMapped writes to a file through a shared mapping.
func writeMapped(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(m[8000:], "mapped")
	return errors.Join(unix.Msync(m, unix.MS_SYNC), unix.Munmap(m))
}

// TestSpliced: a read is spliced when it lies in one extent and the references are held until the reply is written.
func TestSpliced(t *testing.T) {
	s := mount(t, Options{})
	d := frontendtest.NewFile(t, 4*mib, 4096).(*frontendtest.FileDisk)
	spy := frontendtest.Watch(d)
	f := openFile(t, add(t, s, "a", spy), os.O_RDWR)
	t.Cleanup(func() { f.Close(); remove(t, s, "a") })
	want := make([]byte, 4*mib)
	for i := range want {
		want[i] = byte(i>>12) ^ byte(i)
	}
	if _, err := f.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		split, off, n int64
		copied        bool
	}{
		{0, 0, spliceMin, false},
		{0, 4096, spliceMax, false},
		{0, 4096, spliceMin - 4096, true},
		{0, 0, spliceMax + 4096, true},
		{0, 512, spliceMin, true},
		{0, 0, spliceMin + 512, true},
		{mib, mib - 4096, spliceMin, true},
	} {
		d.Split.Store(c.split)
		reads, got := spy.Reads.Load(), make([]byte, c.n)
		if _, err := unix.Pread(int(f.Fd()), got, c.off); err != nil || string(got) != string(want[c.off:c.off+c.n]) {
			t.Errorf("%+v: %v, or other bytes", c, err)
		}
		if copied := spy.Reads.Load() > reads; copied != c.copied {
			t.Errorf("%+v: copied %v", c, copied)
		}
		eventually(t, "references released", func() bool { return d.Held() == 0 })
	}
}
