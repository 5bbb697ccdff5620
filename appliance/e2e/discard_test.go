package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestDiscardFreesSpace, in the log and in the store, as du sees it.
func TestDiscardFreesSpace(t *testing.T) {
	t.Parallel()
	const size, little = 48 << 20, 4 << 20
	store := folder(t)
	m := newMachine(t, store, `upload_age = "1h"`)
	path := m.attach("d", "--size", "128M")
	s := newStamps(size / sector)
	logs := filepath.Join(string(m.state), "logs")

	// What is discarded before its upload never reaches the store. (More than a batch would be uploaded at once.)
	newStamps(size/3/sector).fill(t, path)
	discard(t, path, size)
	m.ok("sync", "d")
	if n := used(t, store.dir); n > little {
		t.Errorf("the store holds %d bytes of a disk that was discarded", n)
	}
	// What is in the store goes with the next merge, and from the store with the next garbage collection.
	s.fill(t, path)
	m.ok("sync", "d")
	if n := used(t, store.dir); n < size {
		t.Fatalf("the store holds %d bytes of %d that were written", n, size)
	}
	if n := used(t, logs); n < little {
		t.Fatalf("the log holds %d bytes of %d that were written", n, size)
	}
	trim(t, path, size)
	m.ok("sync", "d")
	eventually(t, "the store has given the space back", func() bool {
		m.run("gc", "--grace", "2s")
		return used(t, store.dir) < little
	})
	eventually(t, "the log has given the space back", func() bool { return used(t, logs) < 3*little })
	for i, v := range readVersions(t, path, size/sector) {
		if v != 0 {
			t.Fatalf("sector %d is of write %d after a discard", i, v)
		}
	}
	m.ok("detach", "d")
	if n := used(t, logs); n > little {
		t.Errorf("the log of a detached disk takes %d bytes", n)
	}
}

// trim discards the first n bytes; of a block device with the ioctl, since its holes are zeroes that are written.
func trim(t *testing.T, path string, n uint64) {
	t.Helper()
	if !strings.HasPrefix(path, "/dev/") {
		discard(t, path, int64(n))
		return
	}
	f := openDirect(t, path)
	defer f.Close()
	const blkDiscard = 0x1277
	r := [2]uint64{0, n}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), blkDiscard, uintptr(unsafe.Pointer(&r))); e != 0 {
		t.Fatal(fmt.Errorf("discard: %w", e))
	}
	must(t, f.Sync())
}

func discard(t *testing.T, path string, n int64) {
	t.Helper()
	f := openDirect(t, path)
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, n); err != nil {
		t.Fatal(fmt.Errorf("discard: %w", err))
	}
	must(t, f.Sync())
}
