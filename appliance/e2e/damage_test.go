package e2e

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestFlippedBits through the file of a disk (P6): in clean frames, while the daemon is down, they are noticed and fetched again; in
// an object of the store they are EIO. They are never data, and both are counted.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	store := folder(t)
	m := newMachine(t, store, `upload_age = "1h"`)
	s := newStamps(512)
	s.fill(t, m.attach("d", "--size", "64M"))
	away := func() {
		m.ok("detach", "d")
		eventually(t, "the daemon ends", m.gone)
	}
	away()
	s.check(t, m.attach("d")) // fills the cache
	away()

	cache := filepath.Join(string(m.state), "cache")
	if n := flipStamps(t, cache, s); n < len(s.acked)/2 {
		t.Fatalf("only %d sectors are in the clean cache", n)
	}
	s.check(t, m.attach("d"))
	if m.metric("glidefs_cache_damage_total") == 0 {
		t.Error("no damaged frame was counted")
	}
	away()

	must(t, os.RemoveAll(cache))
	packs, err := filepath.Glob(filepath.Join(store.dir, "packs", "*", "*"))
	if err != nil || len(packs) == 0 {
		t.Fatalf("packs %q, %v", packs, err)
	}
	for _, name := range packs {
		if n := flipBits(t, name, func([]byte) []int { return []int{1000} }); n != 1 {
			t.Fatalf("%d bits flipped", n)
		}
	}
	if err := readFirst(m.attach("d")); !errors.Is(err, syscall.EIO) {
		t.Errorf("a read of a damaged object: %v, want EIO", err)
	}
	if m.metric("glidefs_store_damage_total") == 0 {
		t.Error("no damaged object was counted")
	}
}

// flipStamps flips a bit in each stamped sector that some file of a folder has in one piece, and counts them.
func flipStamps(t *testing.T, dir string, s *stamps) (n int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.frames"))
	must(t, err)
	for _, name := range files {
		n += flipBits(t, name, func(content []byte) (at []int) {
			want := make([]byte, sector)
			for i, v := range s.acked {
				stamp(want, i, v)
				if off := bytes.Index(content, want); off >= 0 {
					at = append(at, off+i)
				}
			}
			return at
		})
	}
	return n
}

// flipBits flips a bit in each byte of a file that where names, and counts them.
func flipBits(t *testing.T, name string, where func(content []byte) []int) int {
	t.Helper()
	content, err := os.ReadFile(name)
	must(t, err)
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	at := where(content)
	for _, off := range at {
		_, err := f.WriteAt([]byte{content[off] ^ 4}, int64(off))
		must(t, err)
	}
	return len(at)
}
