package ublk

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"glidefs-appliance/frontends/frontendtest"

	"golang.org/x/sys/unix"
)

const (
	zombieID      = 7
	zombieVersion = 2
	zombies       = 3
	zombieBlocks  = 8 // of each: shorter writes are copied, into the page cache, and don't wait for the disk
)

// limbo is a disk that keeps writes with zombies' stamps for later.
type limbo struct {
	*frontendtest.MemDisk

	mu      sync.Mutex
	keeping bool
	kept    int // blocks
	landing chan struct{}
}

func (l *limbo) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	if n := l.keep(p); n > 0 {
		<-l.landing
		defer l.count(-n)
	}
	return l.MemDisk.WriteAt(ctx, p, off, fua)
}

// keep tells how many blocks of p are zombies, for which it is to wait. The kernel merges neighbours.
func (l *limbo) keep(p []byte) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := 0; l.keeping && i+16 <= len(p); i += 4096 {
		id, version := binary.LittleEndian.Uint64(p[i:]), binary.LittleEndian.Uint64(p[i+8:])
		if id>>40 == zombieID && version == zombieVersion {
			n++
		}
	}
	l.kept += n
	return n
}

func (l *limbo) count(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept += n
}

func (l *limbo) keepMore(yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keeping = yes
}

func (l *limbo) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kept
}

// TestZombies: the disk below the log keeps the writes of a daemon that is killed, and lets them land seconds later, into
// the places in the log that they were meant for: while the next daemon opens, or when it has long been writing, if it
// does not wait for them. That one has a log of two small segments, which it uses over and over. What it wrote stands.
func TestZombies(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		low := &limbo{MemDisk: frontendtest.NewMemDisk(128*mib, 4096), landing: make(chan struct{})}
		land := sync.OnceFunc(func() { close(low.landing) })
		t.Cleanup(land)
		state := mountExt4(t, serve(t, openServer(t, false), "below", low).Path())
		d := startKind(t, "tight", state, zeroCopy)
		path := d.path
		f, p := openDirect(t, path), alignedBytes(t, 64<<10)
		a := newArea(f, zombieID, 0, 128)
		if err := errors.Join(a.write(p, 0, 1), f.Sync()); err != nil {
			t.Fatal(err)
		}
		low.keepMore(true)
		var dying sync.WaitGroup
		for i := range zombies {
			dying.Go(func() { zombie(t, a, i*zombieBlocks) })
		}
		awaitThat(t, "all zombies are on their way", func() bool { return low.waiting() >= zombies*zombieBlocks })
		low.keepMore(false)
		d.kill()
		late := time.AfterFunc(3*time.Second, land)
		d = startKind(t, "tight", state, zeroCopy)
		waited := !late.Stop()
		dying.Wait() // the kernel asked the new daemon to do them again
		for version := uint64(zombieVersion + 1); version < 12; version++ {
			for block := 0; block < len(a.done); block += len(p) / 4096 {
				if err := a.write(p, block, version); err != nil {
					t.Fatal(err)
				}
			}
		}
		land()
		awaitThat(t, "the zombies have landed", func() bool { return low.waiting() == 0 })
		t.Logf("the new daemon waited for the zombies: %t", waited)
		look(t, d, a)
		d.kill()
		d = startKind(t, "tight", state, zeroCopy)
		look(t, d, a)
		f.Close()
		d.stop(t)
	})
}

func zombie(t *testing.T, a *area, block int) {
	p, err := anonymous(zombieBlocks * 4096)
	if err != nil {
		t.Error(err)
		return
	}
	defer munmap(p)
	if err := a.write(p, block, zombieVersion); err != nil {
		t.Error(err)
	}
}

// look reads all of an area.
func look(t *testing.T, d *daemon, a *area) {
	t.Helper()
	late := time.AfterFunc(time.Minute, func() { _ = d.cmd.Process.Signal(unix.SIGQUIT) }) // it tells where it is
	defer late.Stop()
	if err := a.read(alignedBytes(t, len(a.done)*4096), 0); err != nil {
		t.Error(err)
	}
}

// mountExt4 makes a file system on a block device and returns where it is mounted until the test ends.
func mountExt4(t *testing.T, device string) string {
	t.Helper()
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,nodiscard", device).CombinedOutput(); err != nil {
		t.Fatalf("mkfs: %v\n%s", err, out)
	}
	return mounted(t, device)
}

func mounted(t *testing.T, device string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(device, dir, "ext4", 0, ""); err != nil {
		t.Fatalf("mount %s: %v", device, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", device, err)
		}
	})
	return dir
}
