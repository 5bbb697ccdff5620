//go:build lab

package e2e

import (
	"encoding/binary"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestLabGrow: a disk in use grows under its users where the kernel can show them, and says that it will at the next
// attach where it can't. A daemon that is killed before that costs them nothing.
func TestLabGrow(t *testing.T) {
	eachBlockWay(t, func(t *testing.T, w way) {
		const before, after = 64 << 20, 96 << 20
		m := w.machine(t, folder(t), `upload_age = "1h"`)
		path := m.attach("d", "--size", "64M")
		f := openDirect(t, path)
		defer f.Close()
		s := newStamps(2048)
		s.fill(t, path)
		said, want, word := m.ok("resize", "d", "96M"), int64(after), "now"
		if os.Getenv(labEnv) == "usercopy" { // UPDATE_SIZE came with 6.16
			want, word = before, "from the next attach on"
		}
		if !strings.Contains(said, "has 96M "+word) {
			t.Errorf("resize says %q", said)
		}
		wantSize(t, "after resize", f, want)
		m.killDaemon()
		s.check(t, path)
		wantSize(t, "after a kill", f, want)
		must(t, f.Close())
		m.ok("detach", "d")

		path = m.attach("d")
		s.check(t, path)
		f = openDirect(t, path)
		wantSize(t, "after another attach", f, after)
		_, err := f.WriteAt(aligned(sector), after-sector)
		must(t, err)
		must(t, f.Close())
		m.ok("detach", "d")
	})
}

// wantSize of an open disk.
func wantSize(t *testing.T, when string, f *os.File, want int64) {
	t.Helper()
	if n, err := f.Seek(0, 2); n != want || err != nil {
		t.Errorf("%s the device has %d bytes, %v; want %d", when, n, err, want)
	}
}

// TestLabPartitions: attach finds the partitions of a disk, and they are there after a kill too. mount, which makes file
// systems on whole disks, doesn't wait for a search; a disk with partitions it refuses.
func TestLabPartitions(t *testing.T) {
	eachBlockWay(t, func(t *testing.T, w way) {
		m := w.machine(t, folder(t), `upload_age = "1h"`, `debug = true`)
		path := m.attach("parted", "--size", "64M")
		writePartition(t, path)
		m.ok("detach", "parted")
		path = m.attach("parted")
		wantPartition(t, path)
		m.killDaemon()
		w.check(m, "parted")
		wantPartition(t, path)
		m.ok("detach", "parted")

		mnt := m.mountpoint()
		m.fails(exitFailed, []string{"mount", "parted", mnt}, "partition table")
		m.ok("mount", "bare", mnt, "--size", "64M")
		log, err := os.ReadFile(m.state.Log())
		must(t, err)
		steps := regexp.MustCompile(`ublk device made.*disk=bare .* node=\S*( partitions=)?`).FindSubmatch(log)
		if steps == nil || len(steps[1]) > 0 {
			t.Errorf("the steps of a bare disk's device: %q", steps)
		}
		m.ok("umount", mnt)
	})
}

// writePartition makes the disk's second MiB its first partition.
func writePartition(t *testing.T, path string) {
	t.Helper()
	mbr := aligned(sector)
	entry := mbr[446:]
	entry[4] = 0x83
	binary.LittleEndian.PutUint32(entry[8:], 1<<20/sector)
	binary.LittleEndian.PutUint32(entry[12:], 1<<20/sector)
	mbr[510], mbr[511] = 0x55, 0xaa
	f := openDirect(t, path)
	_, err := f.WriteAt(mbr, 0)
	must(t, err)
	must(t, f.Close())
}

func wantPartition(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path + "p1")
	if err != nil {
		t.Errorf("no partition: %v", err)
		return
	}
	defer f.Close()
	wantSize(t, "its partition on", f, 1<<20)
}
