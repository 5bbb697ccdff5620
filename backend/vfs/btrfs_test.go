package vfs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// onBtrfs is a folder of a file system of its own. It needs root, mkfs.btrfs (btrfs-progs) and a
// loop device.
func onBtrfs(t *testing.T) string {
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 128<<20); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	run("mkfs.btrfs", "-q", image)
	run("mount", "-o", "loop", image, dir)
	t.Cleanup(func() { run("umount", dir) })
	return dir
}

// TestAllocatedFileOfFullBtrfs: what was allocated can be written again when the file system has no block left.
// btrfs writes elsewhere than where the data was, unless told not to.
func TestAllocatedFileOfFullBtrfs(t *testing.T) {
	dir := onBtrfs(t)
	const size = 1 << 20
	p := make([]byte, size)
	create := func(name string) File {
		f, err := OS().Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	again := func(f File) error {
		for i := range p {
			p[i]++
		}
		_, err := f.WriteAt(p, 0)
		return errors.Join(err, f.Sync())
	}
	segment, filler := create("segment"), create("filler")
	if err := errors.Join(segment.Allocate(0, size, false), again(segment)); err != nil {
		t.Fatal(err)
	}
	for off, n := int64(0), int64(64<<20); n >= 4096; {
		switch err := filler.Allocate(off, n, true); {
		case err == nil:
			off += n
		case errors.Is(err, ErrNoSpace):
			n /= 2
		default:
			t.Fatal(err)
		}
	}
	for i := range 2 {
		if err := again(segment); err != nil {
			t.Fatalf("write %d into a full file system: %v", i, err)
		}
	}
}
