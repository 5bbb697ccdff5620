package mounts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/frontendtest"
	"glidefs-appliance/frontends/fuse"

	"golang.org/x/sys/unix"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// eventually polls a condition that the kernel brings about.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("not in 10 s: %s", what)
		}
	}
}

// serve puts a sparse disk behind a FUSE file, as the daemon does.
func serve(t *testing.T, size int64, sector int) (*frontendtest.Spy, string) {
	t.Helper()
	spy := frontendtest.Watch(frontendtest.NewFile(t, size, sector))
	return spy, serveDisk(t, spy)
}

func serveDisk(t *testing.T, d frontends.Disk) string {
	t.Helper()
	s, err := fuse.Mount(t.TempDir(), fuse.Options{})
	if err != nil {
		t.Fatal(err)
	}
	path, err := s.Add("disk", d, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		takeAway(t, s, "disk")
		if err := s.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return path
}

// takeAway waits for the loop devices over a file to let go of it, which they do some time after their last close: the kernel
// tears them down in the background, and whoever looks at block devices (udev, other tests) may hold one meanwhile.
func takeAway(t *testing.T, s *fuse.Server, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Remove(ctx, name); err != nil {
		devs, _ := LoopsOf(filepath.Join(s.Dir(), name))
		t.Errorf("%v; loop devices over it: %v", err, devs)
	}
}

func attach(t *testing.T, file string, o LoopOptions) *Loop {
	t.Helper()
	l, err := Attach(file, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// mountFS makes a file system of a kind on a new disk and mounts it; it is unmounted when the test ends.
func mountFS(t *testing.T, file, kind string) string {
	t.Helper()
	dir, l := t.TempDir(), attach(t, file, LoopOptions{Sector: 4096})
	if err := MakeFS(t.Context(), l.Device(), kind); err != nil {
		t.Fatal(err)
	}
	if _, err := Mount(t.Context(), l.Device(), dir, false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAttach(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		_, file := serve(t, 8*mib, sector)
		l := attach(t, file, LoopOptions{Sector: sector})
		if n, err := unix.IoctlGetInt(int(l.f.Fd()), unix.BLKSSZGET); n != sector || err != nil {
			t.Errorf("logical block size %d, %v; want %d", n, err, sector)
		}
		if !l.Direct() {
			t.Error("no direct I/O")
		}
		if g := queue(t, l, "discard_granularity"); g != "4096" {
			t.Errorf("discard granularity %s, want 4096", g)
		}
		if devs, err := LoopsOf(file); err != nil || len(devs) != 1 || devs[0] != l.Device() {
			t.Errorf("LoopsOf: %v, %v", devs, err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		eventually(t, "autoclear", func() bool { devs, _ := LoopsOf(file); return len(devs) == 0 })
	}
}

func queue(t *testing.T, l *Loop, name string) string {
	b, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(l.Device()), "queue", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestAttachReadOnly(t *testing.T) {
	_, file := serve(t, 8*mib, 4096)
	l := attach(t, file, LoopOptions{Sector: 4096, ReadOnly: true})
	if _, err := l.f.WriteAt(make([]byte, 4096), 0); err == nil {
		t.Error("a read-only loop device took a write")
	}
}

func TestAttachTogether(t *testing.T) {
	_, file := serve(t, 8*mib, 4096)
	const n = 16
	got := make(chan *Loop, n)
	for range n {
		go func() {
			l, err := Attach(file, LoopOptions{Sector: 4096})
			if err != nil {
				t.Error(err)
			}
			got <- l
		}()
	}
	seen := make(map[string]bool)
	for range n {
		if l := <-got; l != nil {
			if seen[l.Device()] {
				t.Errorf("%s was given twice", l.Device())
			}
			seen[l.Device()] = true
			defer l.Close()
		}
	}
}

func TestGrow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, mib), 0o600); err != nil {
		t.Fatal(err)
	}
	l := attach(t, path, LoopOptions{Sector: 4096})
	if err := errors.Join(os.Truncate(path, 3*mib), Grow(l.Device())); err != nil {
		t.Fatal(err)
	}
	if n, err := l.f.Seek(0, 2); n != 3*mib || err != nil {
		t.Errorf("size %d, %v", n, err)
	}
}

func TestLoopDriverMissing(t *testing.T) {
	if err := loopDriverError(&os.PathError{Op: "open", Path: loopControl, Err: unix.ENOENT}); !strings.Contains(err.Error(), "modprobe loop") {
		t.Error(err)
	}
	if err := loopDriverError(&os.PathError{Op: "open", Path: loopControl, Err: unix.EACCES}); !strings.Contains(err.Error(), "need root") {
		t.Error(err)
	}
}

func TestBlank(t *testing.T) {
	fill := func(at int64, data []byte) func(*testing.T, *Loop) {
		return func(t *testing.T, l *Loop) {
			if _, err := l.f.WriteAt(data, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	mbr := make([]byte, 512)
	mbr[446+4], mbr[446+12], mbr[510], mbr[511] = 0x83, 1, 0x55, 0xaa
	const size = 32 * mib
	for _, c := range []struct {
		name, found string
		fill        func(*testing.T, *Loop)
	}{
		{"new", "", func(*testing.T, *Loop) {}},
		{"middle", "", fill(size/2, []byte("x"))},
		{"first", "data of an unknown kind in the first MiB", fill(mib-1, []byte("x"))},
		{"last", "data of an unknown kind in the last MiB", fill(size-mib, []byte("x"))},
		{"partitions", "dos partition table", fill(0, mbr)},
		{"ext4", "ext4", func(t *testing.T, l *Loop) {
			if err := MakeFS(t.Context(), l.Device(), "ext4"); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		_, file := serve(t, size, 512)
		l := attach(t, file, LoopOptions{Sector: 512})
		c.fill(t, l)
		if err := l.f.Sync(); err != nil {
			t.Fatal(err)
		}
		blank, found, err := Blank(t.Context(), l.Device())
		if err != nil || blank != (c.found == "") || found != c.found {
			t.Errorf("%s: %v, %q, %v; want %q", c.name, blank, found, err, c.found)
		}
		l.Close()
	}
	if _, _, err := Blank(t.Context(), "/dev/nonesuch"); err == nil {
		t.Error("a missing device is blank")
	}
}

func TestFileSystems(t *testing.T) {
	for _, kind := range Kinds() {
		t.Run(kind, func(t *testing.T) { testFileSystem(t, kind) })
	}
}

func testFileSystem(t *testing.T, kind string) {
	spy, file := serve(t, 512*mib, 4096)
	dir := mountFS(t, file, kind)
	data := strings.Repeat("glidefs", 3*mib)
	for _, name := range []string{"keep", "delete"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if m, ok, err := At(dir); !ok || err != nil || m.Backing != file || m.FSType != kind || m.ReadOnly {
		t.Errorf("At: %+v, %v, %v", m, ok, err)
	}
	if p, err := ReadPlaces(filepath.Dir(file)); err != nil || !slices.Equal(p[file], []string{dir}) {
		t.Errorf("places: %v, %v", p, err)
	}
	unix.Sync()
	if err := os.Remove(filepath.Join(dir, "delete")); err != nil {
		t.Fatal(err)
	}
	unix.Sync()
	if err := Unmount(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if n := spy.Discarded.Load(); n < 15*mib {
		t.Errorf("deleting 20 MiB discarded %d bytes", n)
	}
	eventually(t, "the loop device goes with the mount", func() bool { devs, _ := LoopsOf(file); return len(devs) == 0 })

	l := attach(t, file, LoopOptions{Sector: 4096, ReadOnly: true})
	if _, err := Mount(t.Context(), l.Device(), dir, true); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if got, err := os.ReadFile(filepath.Join(dir, "keep")); err != nil || string(got) != data {
		t.Errorf("read back: %d bytes, %v", len(got), err)
	}
	if m, _, err := At(dir); err != nil || !m.ReadOnly {
		t.Errorf("At: %+v, %v; want read-only", m, err)
	}
	if err := Unmount(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
}

// TestMkfsIsCheap: a big disk takes little writing, since that is what the first upload costs.
func TestMkfsIsCheap(t *testing.T) {
	for _, kind := range Kinds() {
		spy, file := serve(t, 10*gib, 4096)
		l := attach(t, file, LoopOptions{Sector: 4096})
		if err := errors.Join(MakeFS(t.Context(), l.Device(), kind), l.f.Sync(), l.Close()); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d KiB written, %d requests", kind, spy.Written.Load()>>10, spy.Writes.Load())
		if n := spy.Written.Load(); n > 8*mib {
			t.Errorf("mkfs.%s of 10 GiB wrote %d bytes", kind, n)
		}
	}
}

func TestMakeFSErrors(t *testing.T) {
	if err := MakeFS(t.Context(), "/dev/null", "ntfs"); err == nil || !strings.Contains(err.Error(), `"btrfs" "ext4" "xfs"`) {
		t.Errorf("unknown kind: %v", err)
	}
	if _, err := program("mkfs.nonesuch", "nonesuch-progs"); err == nil || !strings.Contains(err.Error(), "apt install nonesuch-progs") {
		t.Errorf("missing program: %v", err)
	}
	if err := MakeFS(t.Context(), "/dev/null", "ext4"); err == nil || !strings.Contains(err.Error(), "mkfs.ext4 /dev/null") {
		t.Errorf("failing program: %v", err)
	}
}

func TestMountOfNothing(t *testing.T) {
	_, file := serve(t, 8*mib, 4096)
	l := attach(t, file, LoopOptions{Sector: 4096})
	if _, err := Mount(t.Context(), l.Device(), t.TempDir(), false); !errors.Is(err, ErrNoFS) {
		t.Errorf("%v, want ErrNoFS", err)
	}
	l.Close()
}

func TestPrepareDir(t *testing.T) {
	base := t.TempDir()
	if got, err := PrepareDir(filepath.Join(base, "new")); err != nil || got != filepath.Join(base, "new") {
		t.Errorf("missing: %q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(base, "new")); err != nil {
		t.Error(err)
	}
	if _, err := PrepareDir(filepath.Join(base, "new")); err != nil {
		t.Errorf("empty: %v", err)
	}
	if _, err := PrepareDir(filepath.Join(base, "a/b")); !errors.Is(err, ErrNoParent) {
		t.Errorf("missing with its parent: %v", err)
	}
	if _, err := PrepareDir(base); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("not empty: %v", err)
	}
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := PrepareDir(file); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("a file: %v", err)
	}
	link := filepath.Join(base, "link")
	if err := os.Symlink("new", link); err != nil {
		t.Fatal(err)
	}
	if got, err := PrepareDir(link); err != nil || got != filepath.Join(base, "new") {
		t.Errorf("a link: %q, %v", got, err)
	}
	if err := unix.Mount("none", filepath.Join(base, "new"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(filepath.Join(base, "new"), 0)
	var m *MountedError
	if _, err := PrepareDir(link); !errors.As(err, &m) || m.FSType != "tmpfs" || m.Dir != filepath.Join(base, "new") {
		t.Errorf("mounted: %v", err)
	}
}

func TestUnmountBusy(t *testing.T) {
	_, file := serve(t, 64*mib, 4096)
	dir := mountFS(t, file, "ext4")
	f, err := os.Create(filepath.Join(dir, "open"))
	if err != nil {
		t.Fatal(err)
	}
	err = Unmount(t.Context(), dir)
	var busy *BusyError
	if !errors.As(err, &busy) || !errors.Is(err, unix.EBUSY) {
		t.Fatalf("%v, want a BusyError", err)
	}
	if want := fmt.Sprintf("(pid %d: open file %s)", os.Getpid(), f.Name()); !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want %q in it", err, want)
	}
	f.Close()
	sub := filepath.Join(dir, "sub")
	if err := errors.Join(os.Mkdir(sub, 0o755), unix.Mount("none", sub, "tmpfs", 0, "")); err != nil {
		t.Fatal(err)
	}
	if err := Unmount(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "mounted at "+sub) {
		t.Errorf("%v; want the mount below named", err)
	}
	if err := errors.Join(unix.Unmount(sub, 0), Unmount(t.Context(), dir)); err != nil {
		t.Error(err)
	}
	if err := Unmount(t.Context(), dir); !errors.Is(err, unix.EINVAL) {
		t.Errorf("unmount of what is not mounted: %v", err)
	}
}

func TestUnmountOfAFailedDisk(t *testing.T) {
	spy, file := serve(t, 64*mib, 4096)
	dir := mountFS(t, file, "ext4")
	if err := os.WriteFile(filepath.Join(dir, "lost"), make([]byte, mib), 0o600); err != nil {
		t.Fatal(err)
	}
	spy.Hook(func(_ context.Context, op string) error {
		if op != "read" {
			return errors.New("fenced")
		}
		return nil
	})
	if err := Unmount(t.Context(), dir); !errors.Is(err, ErrNotSynced) {
		t.Errorf("%v, want ErrNotSynced", err)
	}
	if _, ok, err := At(dir); ok || err != nil {
		t.Errorf("still mounted, %v", err)
	}
}
