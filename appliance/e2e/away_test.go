package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"glidefs-appliance/appliance/mounts"
)

// TestAwayAndBack: a disk that was elsewhere meanwhile comes back as it was left there, never as this machine remembers it.
func TestAwayAndBack(t *testing.T) {
	t.Parallel()
	store := folder(t)
	a, b := newMachine(t, store), newMachine(t, store)
	s := newStamps(512)
	for n, m := range []*machine{a, b, a, b} {
		path := m.attach("d", "--size", "64M")
		s.check(t, path)
		s.version.Store(uint64(n) * 1000)
		s.fill(t, path)
		s.check(t, path)
		m.ok("detach", "d")
	}
}

// TestRestoredStateDir: a state dir that was restored from a backup is behind the store. What it holds is not read; what
// would be only there is counted, and can be settled.
func TestRestoredStateDir(t *testing.T) {
	t.Parallel()
	store := folder(t)
	m := newMachine(t, store, `upload_age = "1h"`)
	s := newStamps(512)
	path := m.attach("d", "--size", "64M")
	s.fill(t, path)
	m.crash()
	_, err := mounts.CleanDead(m.state.Fuse())
	must(t, err)
	backup := filepath.Join(m.dir, "backup")
	mustRun(t, "cp", "-a", string(m.state), backup)

	path = m.attach("d")
	s.version.Store(1000)
	s.fill(t, path)
	m.ok("sync", "d")
	m.crash()
	m.forget()
	must(t, os.Rename(backup, string(m.state)))
	m.fails(exitOwned, []string{"attach", "d"}, "does not continue what the store holds", "salvage", "abandon")
	m.ok("abandon", "d", "--yes")
	s.check(t, m.attach("d"))
}

// TestMadeAgain: the disk was taken over, removed and made again elsewhere. The first machine's log belongs to no disk
// any more, and is no part of the new one.
func TestMadeAgain(t *testing.T) {
	t.Parallel()
	store := folder(t)
	a, b := newMachine(t, store, `upload_age = "1h"`), newMachine(t, store)
	old, now := newStamps(512), newStamps(512)
	old.fill(t, a.attach("d", "--size", "64M"))
	a.crash()
	b.attach("d", "--takeover")
	b.ok("detach", "d")
	b.ok("rm", "d", "--yes")
	now.version.Store(1000)
	now.fill(t, b.attach("d", "--size", "64M"))
	b.ok("detach", "d")

	a.fails(exitOwned, []string{"attach", "d"}, "writes are only here", "salvage", "abandon")
	a.ok("salvage", "d", "rescued")
	old.check(t, a.attach("rescued"))
	a.ok("abandon", "d", "--yes")
	now.check(t, a.attach("d"))
}
