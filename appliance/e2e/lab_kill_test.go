//go:build lab

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/backend/store/storetest"
)

// diskNames of what status prints with --json.
func diskNames(printed string) (names []string) {
	var list []api.Disk
	_ = json.Unmarshal([]byte(printed), &list) // nothing printed: none
	for _, d := range list {
		names = append(names, d.Name)
	}
	return names
}

// TestLabKill: the daemon is killed again and again under a block device that is written to. Its users wait for the
// next one, and not one request fails or is lost (issue: "devices come back without one I/O error").
func TestLabKill(t *testing.T) {
	eachBlockWay(t, func(t *testing.T, w way) {
		store := folder(t)
		m := w.machine(t, store, `upload_age = "200ms"`)
		path := m.attach("d", "--size", "128M")
		w.check(m, "d")
		s := newStamps(2048)
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		ended := make(chan error, 1)
		go func() { ended <- s.write(ctx, path, false) }()
		fio := verifying(t, path, 32<<20, 32<<20)
		for n := range 3 {
			target := s.acks.Load() + 300
			eventually(t, "enough is written", func() bool { return s.acks.Load() >= target })
			t.Logf("kill %d, fio is over: %t", n, fio.over())
			m.killDaemon()
		}
		target := s.acks.Load() + 300
		eventually(t, "writes go on", func() bool { return s.acks.Load() >= target })
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the writers ended with: %v", err)
		}
		fio.finish()
		if now := m.status("d").Device; now != path {
			t.Errorf("the device was %s and is %s", path, now)
		}
		w.check(m, "d")
		s.check(t, path)
		m.ok("detach", "d")
		other := w.machine(t, store)
		s.check(t, other.attach("d"))
		other.ok("detach", "d")
	})
}

// TestLabKilledCold: a daemon that is killed while a new device's first read waits for the store is gone at once, on
// every kernel: a thread of it that waits in the kernel could not end, and nobody could have the disk until a reboot.
func TestLabKilledCold(t *testing.T) {
	eachBlockWay(t, func(t *testing.T, w way) {
		store, c := counted(t)
		m := w.machine(t, store, `upload_age = "1h"`, `read_timeout = "60s"`)
		s := newStamps(2048)
		s.fill(t, m.attach("d", "--size", "64M"))
		m.ok("detach", "d")
		eventually(t, "the daemon ends", m.gone)
		must(t, os.RemoveAll(filepath.Join(string(m.state), "cache")))

		m.attach("other", "--size", "64M") // its daemon has a supervisor that starts the next one
		holding, free := c.holdFirst("/packs/")
		attach := m.start("attach", "d")
		<-holding
		m.killDaemon()
		free()
		m.finish(attach)
		s.check(t, m.attach("d"))
		m.ok("detach", "d")
		m.ok("detach", "other")
	})
}

// TestLabFileSystem: a disk is made, formatted, mounted, filled and unmounted, and its checker finds nothing. Mounted again,
// the daemon is killed under files that are made and a fio that verifies. On a block device nobody notices. On
// FUSE they get EIO until the disk is mounted again; what had an fsync is there (P3).
func TestLabFileSystem(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		kinds := []string{"ext4"}
		if w.frontend == "ublk-zc" {
			kinds = append(kinds, "xfs")
		}
		for _, kind := range kinds {
			t.Run(kind, func(t *testing.T) { killMounted(t, w, kind) })
		}
	})
}

func killMounted(t *testing.T, w way, kind string) {
	m := w.machine(t, folder(t), `upload_age = "300ms"`)
	mnt := m.mountpoint()
	files := &files{dir: mnt, sums: map[string]string{}}
	m.ok("mount", "d", mnt, "--size", "320M", "--fs", kind)
	w.check(m, "d")
	must(t, files.some(20))
	m.ok("umount", mnt)
	m.fsck("d", kind)

	m.ok("mount", "d", mnt)
	files.check(t)
	if w.block() {
		killUnnoticed(t, m, files)
	} else {
		killNoticed(t, m, files)
	}
	files.check(t)
	m.ok("umount", mnt)
	m.fsck("d", kind)
}

// some makes n files.
func (f *files) some(n int64) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	until := f.n.Load() + n
	return f.makeWhile(ctx, func() bool { return f.n.Load() < until })
}

// makeWhile makes files until ctx ends or more says no, or one fails.
func (f *files) makeWhile(ctx context.Context, more func() bool) error {
	for ctx.Err() == nil && more() {
		name, content := fmt.Sprintf("f%06d", f.n.Load()), storetest.Random(uint64(f.n.Load()), 1+mathrand.IntN(32<<10))
		if err := writeSynced(filepath.Join(f.dir, name), content); err != nil {
			return err
		}
		f.sums[name] = sum(content)
		f.n.Add(1)
	}
	return nil
}

func killUnnoticed(t *testing.T, m *machine, files *files) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- files.makeWhile(ctx, func() bool { return true }) }()
	target := files.dir + "/fio"
	must(t, os.WriteFile(target, make([]byte, 24<<20), 0o644))
	fio := verifying(t, target, 0, 24<<20)
	device := m.status("d").Device
	for n := range 2 {
		goal, made := written(t, device)+300, files.n.Load()+3
		eventually(t, "enough is written", func() bool { return written(t, device) >= goal && files.n.Load() >= made })
		t.Logf("kill %d, fio is over: %t", n, fio.over())
		m.killDaemon()
	}
	made := files.n.Load() + 5
	eventually(t, "files are made again", func() bool { return files.n.Load() >= made })
	stop()
	if err := <-ended; err != nil {
		t.Errorf("a file could not be made: %v", err)
	}
	fio.finish()
}

func killNoticed(t *testing.T, m *machine, files *files) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- files.make() }()
	target := files.n.Load() + 5
	eventually(t, "enough files are made", func() bool { return files.n.Load() >= target })
	m.killDaemon()
	if err := <-ended; err == nil {
		t.Error("files could be made on a dead disk")
	}
	m.ok("mount", "d", files.dir)
}
