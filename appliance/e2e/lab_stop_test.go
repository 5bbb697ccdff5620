//go:build lab

package e2e

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// terminate ends the daemon in order.
func (m *machine) terminate() {
	m.t.Helper()
	supervisor, _ := m.processes()
	must(m.t, unix.Kill(supervisor, unix.SIGTERM))
	eventually(m.t, "the daemon ends", m.gone)
}

// blockDiscard is BLKDISCARD.
func blockDiscard(f *os.File, off, n int64) error {
	arg := [2]uint64{uint64(off), uint64(n)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKDISCARD, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return errno
	}
	return nil
}

// TestLabTerminated: SIGTERM under load, to either process. The device that is merely open goes, and its users get
// errors. The one that is mounted waits, with its users, and the next daemon takes it: nobody there gets an error. Nothing
// acknowledged is lost.
func TestLabTerminated(t *testing.T) {
	eachBlockWay(t, func(t *testing.T, w way) {
		m := w.machine(t, folder(t), `upload_age = "200ms"`)
		mnt := m.mountpoint()
		m.ok("mount", "fs", mnt, "--size", "256M")
		files := &files{dir: mnt, sums: map[string]string{}}
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		made := make(chan error, 1)
		go func() { made <- files.makeWhile(ctx, func() bool { return true }) }()
		s := newStamps(2048)
		for n := range 2 {
			terminateUnderLoad(t, m, s, files, n%2 == 0)
		}
		path := m.attach("raw") // starts a daemon, which takes the mounted one back
		w.check(m, "fs")
		target := files.n.Load() + 5
		eventually(t, "files are made again", func() bool { return files.n.Load() >= target })
		stop()
		if err := <-made; err != nil {
			t.Errorf("a file could not be made: %v", err)
		}
		s.check(t, path)
		files.check(t)
		m.ok("umount", mnt)
		m.ok("detach", "raw")
		m.fsck("fs", "ext4")
	})
}

func terminateUnderLoad(t *testing.T, m *machine, s *stamps, files *files, supervised bool) {
	t.Helper()
	path, device := m.attach("raw", "--size", "64M"), m.status("fs").Device
	s.check(t, path)
	ended := make(chan error, 1)
	go func() { ended <- s.write(context.Background(), path, false) }()
	acks, made := s.acks.Load()+200, files.n.Load()+3
	eventually(t, "enough is written", func() bool { return s.acks.Load() >= acks && files.n.Load() >= made })
	supervisor, daemon := m.processes()
	if !supervised {
		supervisor = daemon
	}
	began := time.Now()
	must(t, unix.Kill(supervisor, unix.SIGTERM))
	eventually(t, "the daemon ends", m.gone)
	t.Logf("the daemon ended after %s", time.Since(began))
	if err := <-ended; !deviceWent(err) {
		t.Errorf("the writers ended with: %v", err)
	}
	eventually(t, "the device that nobody has mounted is gone", func() bool {
		_, err := os.Stat("/sys/class/block/" + path[len("/dev/"):])
		return errors.Is(err, os.ErrNotExist)
	})
	if _, err := os.Stat("/sys/class/block/" + device[len("/dev/"):]); err != nil {
		t.Errorf("the mounted device is gone: %v", err)
	}
}

// deviceWent tells whether an error is what users of a block device get that is taken away.
func deviceWent(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ENOSPC)
}

// TestLabUnmountWithoutDaemon: a daemon that was stopped has left a mounted block device behind, whose every user waits.
// umount starts the next daemon before it unmounts.
func TestLabUnmountWithoutDaemon(t *testing.T) {
	eachBlockWay(t, func(t *testing.T, w way) {
		store := folder(t)
		m := w.machine(t, store, `upload_age = "1h"`)
		mnt := m.mountpoint()
		m.ok("mount", "fs", mnt, "--size", "64M")
		files := &files{dir: mnt, sums: map[string]string{}}
		must(t, files.some(5))
		must(t, os.WriteFile(mnt+"/dirty", make([]byte, 1<<20), 0o644)) // for the unmounting to write
		m.terminate()
		m.ok("umount", mnt)
		if left := m.disks(); len(left) > 0 {
			t.Errorf("status still shows %+v", left)
		}
		other := w.machine(t, store)
		files.dir = other.mountpoint()
		other.ok("mount", "fs", files.dir)
		files.check(t)
		other.ok("umount", files.dir)
	})
}
