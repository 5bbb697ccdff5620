//go:build lab

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"glidefs-appliance/backend/store/storetest"

	"golang.org/x/sys/unix"
)

// carryEnv is a folder that outlives the guest; .ci/test-vm boots one kernel after the other with it.
const carryEnv = "GLIDEFS_CARRY"

const carrySize = 96 << 20

// carried is what one boot tells the next.
type carried struct {
	Boots []string          // frontends so far
	Sums  map[string]string // of the disks
	Files map[string]string // on the file system
}

// TestLabCarry is one boot of several with different kernels and one state dir, one store: what the boots before have
// written through their frontends is there, bit for bit, and this one changes some of it. Three disks differ in how a boot
// leaves them: "sent" is detached, "log" has writes in the log only, "fs" is a file system that is unmounted.
func TestLabCarry(t *testing.T) {
	dir := os.Getenv(carryEnv)
	if dir == "" {
		t.Fatalf("%s names no folder", carryEnv)
	}
	w := ways(t)[0]
	before := readCarried(t, dir)
	t.Logf("boot %d, %s, after %v", len(before.Boots), w.frontend, before.Boots)
	store := home{url: "file://" + filepath.Join(dir, "store")}
	must(t, os.MkdirAll(filepath.Join(dir, "store"), 0o700))
	m := w.prepare(machineAt(t, dir, store, `upload_age = "1h"`))
	for _, name := range []string{"sent", "log"} {
		before.Sums[name] = carryOn(t, m, w, name, before.Sums[name])
	}
	m.ok("detach", "sent")
	carryFiles(t, m, w, before.Files)
	if d := m.status("log"); d.DirtyBytes == 0 {
		t.Error("disk log has nothing in its log")
	}
	before.Boots = append(before.Boots, w.frontend)
	before.write(t, dir)
	m.terminate()
}

// carryOn compares a disk with what it was, changes some of it and returns its sum.
func carryOn(t *testing.T, m *machine, w way, name, want string) string {
	t.Helper()
	path := m.attach(name, "--size", fmt.Sprint(carrySize))
	w.check(m, name)
	if got := diskSum(t, path, carrySize); want != "" && got != want {
		t.Errorf("disk %s: checksum %s, and the boot before left %s", name, got, want)
	}
	f := openDirect(t, path)
	defer f.Close()
	p := aligned(256 << 10)
	for range 64 {
		n := 1 + rand.IntN(len(p)/sector)
		copy(p, storetest.Random(rand.Uint64(), n*sector))
		_, err := f.WriteAt(p[:n*sector], rand.Int64N(carrySize/sector-int64(n))*sector)
		must(t, err)
	}
	must(t, f.Sync())
	must(t, zeroRange(f, w.block(), rand.Int64N(64)<<20, 1<<20))
	must(t, f.Sync())
	return diskSum(t, path, carrySize)
}

// zeroRange takes what lies there away, by a discard.
func zeroRange(f *os.File, block bool, off, n int64) error {
	if !block {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	}
	return blockDiscard(f, off, n)
}

// carryFiles mounts the file system, compares, makes more files and unmounts.
func carryFiles(t *testing.T, m *machine, w way, sums map[string]string) {
	t.Helper()
	mnt := m.mountpoint()
	m.ok("mount", "fs", mnt, "--size", "64M")
	w.check(m, "fs")
	files := &files{dir: mnt, sums: sums}
	files.n.Store(int64(len(sums)))
	files.check(t)
	must(t, files.some(20))
	m.ok("umount", mnt)
	m.fsck("fs", "ext4")
}

func readCarried(t *testing.T, dir string) carried {
	t.Helper()
	c := carried{Sums: map[string]string{}, Files: map[string]string{}}
	b, err := os.ReadFile(filepath.Join(dir, "carried.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return c
	}
	must(t, err)
	must(t, json.Unmarshal(b, &c))
	return c
}

func (c carried) write(t *testing.T, dir string) {
	t.Helper()
	b, err := json.MarshalIndent(c, "", "  ")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "carried.json"), b, 0o600))
}
