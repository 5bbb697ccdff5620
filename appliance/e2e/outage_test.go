package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"glidefs-appliance/appliance/client"
	"glidefs-appliance/backend/store/storetest"

	"golang.org/x/sys/unix"
)

// TestOutage: the store stops, or hangs. Writes and what is here go on, status answers, what is only there ends in EIO,
// and nothing is lost when the store is back (P1, P9).
func TestOutage(t *testing.T) {
	one, other := storetest.StartVersitygw(t), storetest.StartVersitygw(t)
	t.Run("stopped", func(t *testing.T) {
		t.Parallel()
		testOutage(t, bucket(one), one.Stop, func() { one.Start(t) })
	})
	t.Run("hanging", func(t *testing.T) {
		t.Parallel()
		hang, goOn := hanging(t, other)
		testOutage(t, bucket(other), hang, goOn)
	})
}

// hanging stops a server so that its connections stand and nobody answers.
func hanging(t *testing.T, s *storetest.S3Server) (hang, goOn func()) {
	t.Helper()
	pids := processesWith("posix", filepath.Dir(s.Dir))
	if len(pids) != 1 {
		t.Fatalf("processes %v serve %s", pids, s.Dir)
	}
	signal := func(sig unix.Signal) func() {
		return func() { must(t, unix.Kill(pids[0], sig)) }
	}
	t.Cleanup(func() { _ = unix.Kill(pids[0], unix.SIGCONT) })
	return signal(unix.SIGSTOP), signal(unix.SIGCONT)
}

func testOutage(t *testing.T, store home, away, back func()) {
	const sectors = 1024
	m := newMachine(t, store, `upload_age = "200ms"`, `read_timeout = "2s"`, `sync_timeout = "3s"`)
	cold, hot := newStamps(sectors), newStamps(sectors)
	mnt := m.mountpoint()
	cold.fill(t, m.attach("cold", "--size", "64M"))
	m.ok("detach", "cold")
	eventually(t, "the daemon ends", m.gone)
	must(t, os.RemoveAll(filepath.Join(string(m.state), "cache")))
	coldPath, hotPath := m.attach("cold"), m.attach("hot", "--size", "64M")
	hot.fill(t, hotPath)
	m.ok("mount", "fs", mnt, "--size", "64M")
	for _, name := range []string{"hot", "fs"} {
		m.ok("sync", name)
	}

	away()
	hot.version.Store(1000)
	hot.fill(t, hotPath) // with its fsync
	hot.check(t, hotPath)
	must(t, writeSynced(mnt+"/file", []byte("written without the store")))
	promptStatus(t, m, "hot", client.Running)
	eventually(t, "status says that the store is away", func() bool { return m.status("hot").StoreHealth != "ok" })
	if err := readFirst(coldPath); !errors.Is(err, syscall.EIO) {
		t.Errorf("a read of what is only in the store: %v, want EIO", err)
	}
	promptStatus(t, m, "hot", client.Running)

	m.fails(exitNotAll, []string{"umount", mnt}, "not in the store", "has been away", "sync fs")
	m.fails(exitNotAll, []string{"detach", "hot"}, "not in the store", "has been away", "sync hot")
	if d := m.status("hot"); d.State != "detached" || d.DirtyBytes == 0 {
		t.Errorf("status of what was not uploaded: %+v", d)
	}

	back()
	eventually(t, "the store is asked again", func() bool { return readFirst(coldPath) == nil })
	cold.check(t, coldPath)
	m.ok("sync", "hot")
	m.ok("mount", "fs", mnt)
	m.ok("umount", mnt)
	other := newMachine(t, store)
	hot.check(t, other.attach("hot"))
	mnt = other.mountpoint()
	other.ok("mount", "fs", mnt)
	content, err := os.ReadFile(mnt + "/file")
	if err != nil || string(content) != "written without the store" {
		t.Errorf("file written during the outage: %q, %v", content, err)
	}
	other.ok("umount", mnt)
}

// readFirst reads the first sector of a disk.
func readFirst(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.ReadAt(aligned(sector), 0)
	return err
}

// TestInterruptedUmount: ctrl-C while umount uploads ends it with exit 3; the disk is unmounted and detached, and sync
// uploads the rest.
func TestInterruptedUmount(t *testing.T) {
	s := storetest.StartVersitygw(t)
	m := newMachine(t, bucket(s), `upload_age = "1h"`, `sync_timeout = "1h"`)
	mnt := m.mountpoint()
	m.ok("mount", "d", mnt, "--size", "64M")
	must(t, writeSynced(mnt+"/file", make([]byte, 8<<20)))
	hang, goOn := hanging(t, s)
	hang()
	umount := m.start("umount", mnt)
	eventually(t, "the file system is unmounted", func() bool { return len(mountsBelow(mnt)) == 0 })
	must(t, umount.Process.Signal(os.Interrupt))
	m.want(m.finish(umount), umount.Args, exitNotAll, "interrupted", "sync d")
	goOn()
	m.ok("sync", "d")
	other := newMachine(t, bucket(s))
	mnt = other.mountpoint()
	other.ok("mount", "d", mnt)
	other.ok("umount", mnt)
}
