package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"glidefs-appliance/appliance/mounts"

	"golang.org/x/sys/unix"
)

// TestFullLocalDisk: the file system of the log is filled up from elsewhere. Writes wait, status names the file system,
// uploads go on; everything finishes when the store takes the log's content, or when there is space again.
func TestFullLocalDisk(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"the store is back", "there is space again"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			disk := smallDisk(t, "256M")
			store := folder(t)
			m := machineAt(t, disk, store, `upload_age = "100ms"`, `cache_size = "32M"`)
			path := m.attach("d", "--size", "256M")
			away, back := renamed(t, store.dir)
			away()
			free := fillUp(t, disk, 16<<20)
			s := newStamps(48 << 20 / sector)
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			ended := make(chan error, 1)
			go func() { ended <- s.write(ctx, path, false) }()
			eventually(t, "a write waits, and status says for which file system", func() bool {
				d := m.status("d")
				return d.Waiting > 0 && strings.Contains(d.Reason, disk)
			})
			acks := s.acks.Load()
			if way == "there is space again" {
				free()
			} else {
				back()
			}
			eventually(t, "writes go on", func() bool { return s.acks.Load() > acks+1000 })
			stop()
			must(t, <-ended)
			if way == "there is space again" {
				back()
			}
			m.ok("detach", "d")
			s.check(t, newMachine(t, store).attach("d"))
		})
	}
}

// TestCrashOnAFullDisk: a daemon that died on a disk that is full loses nothing, and says what is wrong until there is
// room.
func TestCrashOnAFullDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "128M")
	m := machineAt(t, disk, folder(t), `upload_age = "1h"`, `cache_size = "16M"`)
	s := newStamps(1024)
	s.fill(t, m.attach("d", "--size", "64M"))
	m.crash()
	free := fillUp(t, disk, 0)
	if r := m.run("attach", "d"); r.code != 0 && !strings.Contains(r.stderr, "full") && !strings.Contains(r.stderr, "no space") {
		t.Errorf("attach on a full disk: exit %d: %s", r.code, r.stderr)
	}
	m.end()
	eventually(t, "the daemon is dead", m.gone)
	free()
	s.check(t, m.attach("d"))
}

// TestStateDirIsRefused when it is read-only, another daemon's, or a copy.
func TestStateDirIsRefused(t *testing.T) {
	t.Parallel()
	disk, store := smallDisk(t, "128M"), folder(t)
	m := machineAt(t, disk, store, `upload_age = "1h"`, `cache_size = "16M"`)
	s := newStamps(256)
	path := m.attach("d", "--size", "64M")
	s.fill(t, path)
	m.fails(exitFailed, []string{"serve"}, "in use by another daemon")
	s.check(t, path)
	m.crash()

	_, err := mounts.CleanDead(m.state.Fuse())
	must(t, err)
	copied := newMachine(t, store)
	mustRun(t, "cp", "-a", string(m.state), string(copied.state))
	copied.fails(exitFailed, []string{"attach", "d"}, "copied from elsewhere", string(m.state))

	mustRun(t, "mount", "-o", "remount,ro", disk)
	m.fails(exitFailed, []string{"attach", "d"}, "read-only file system")
	mustRun(t, "mount", "-o", "remount,rw", disk)
	s.check(t, m.attach("d"))
}

// smallDisk mounts an ext4 of its own.
func smallDisk(t *testing.T, size string) (dir string) {
	t.Helper()
	at := scratch(t)
	image, dir := filepath.Join(at, "image"), filepath.Join(at, "m")
	must(t, os.Mkdir(dir, 0o755))
	mustRun(t, "truncate", "-s", size, image)
	mustRun(t, "mkfs.ext4", "-q", "-m", "0", image)
	mustRun(t, "mount", "-o", "loop", image, dir)
	return dir
}

// fillUp leaves so many bytes free, until they are freed again.
func fillUp(t *testing.T, dir string, leave int64) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	size := int64(0)
	for step := int64(64 << 20); step >= sector; {
		err := unix.Fallocate(int(f.Fd()), 0, size, step)
		switch {
		case err == nil:
			size += step
		case errors.Is(err, unix.ENOSPC):
			step /= 2
		default:
			t.Fatal(err)
		}
	}
	must(t, f.Truncate(size-leave))
	return func() { must(t, os.Remove(path)) }
}
