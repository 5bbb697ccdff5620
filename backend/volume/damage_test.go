package volume

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/vfs"
)

// stocked is a store that holds a disk of 1 MiB with a tail (an inline pack too) and levels.
func stocked(t *testing.T) (map[string][]byte, *disk) {
	r := newRig(vfs.NewCrash(), "/state")
	j := newJournal(nil, func() int { return 0 })
	r.st, r.tuning.TailPacks, r.tuning.LevelBytes = j, 2, 32<<10
	d := &disk{witness: newWitness("a", 4096, make([]byte, 1<<20))}
	d.v = r.open(t, "a", OpenOptions{Create: int64(len(d.now))})
	rng := rand.New(rand.NewPCG(3, 3))
	for i := range 40 {
		off, n := d.span(rng)
		if i > 36 {
			off, n = off/4096*4096, 4096
		}
		p := make([]byte, n)
		if d.stamp(p, off, rng); i%5 == 0 {
			clear(p)
		}
		copy(d.now[off:], p)
		if err := d.v.WriteAt(t.Context(), p, off, false); err != nil {
			t.Fatal(err)
		}
		if i%4 == 0 || i > 36 {
			mustSync(t, d.v)
		}
	}
	mustSync(t, d.v)
	r.h.shared().merging <- struct{}{} // compaction has ended
	man := d.v.currentView().man
	r.kill(d.v, false)
	if len(man.Levels) < 2 || len(man.Tail) == 0 {
		t.Fatalf("%d levels, %d in the tail", len(man.Levels), len(man.Tail))
	}
	objects := objects(j.snapshot())
	named := map[string][]byte{manifest.Key("a"): objects[manifest.Key("a")]}
	for _, key := range reachable(t, objects) {
		named[key] = objects[key]
	}
	return named, d
}

// reachable lists the objects without which the disk can't be read or checked.
func reachable(t *testing.T, all map[string][]byte) (keys []string) {
	for key := range all {
		st := copied(t, all)
		if err := st.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		r := newRig(vfs.NewCrash(), "/state")
		r.st = st
		if rep, err := Verify(t.Context(), r.start(t), "a", nil); err != nil || len(rep.Damage) > 0 {
			keys = append(keys, key)
		}
		_ = r.c.Close()
	}
	return keys
}

func copied(t *testing.T, all map[string][]byte) *mem.Store {
	st := mem.New()
	for key, body := range all {
		if _, err := st.Put(t.Context(), key, body, store.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	return st
}

// TestFlippedBitsInObjects flips a bit anywhere in any object of a disk, or takes the object away (P6): a cold reader gets
// the right data or an error, and the damage is counted; Verify names bytes of the disk, and all that can't be read.
func TestFlippedBitsInObjects(t *testing.T) {
	objects, d := stocked(t)
	rng := rand.New(rand.NewPCG(rand.Uint64(), 4))
	kinds := map[string]int{}
	for began, budget := time.Now(), testBudget(t, 3*time.Second); time.Since(began) < budget && !t.Failed(); {
		for key, body := range objects {
			st, kind := copied(t, objects), strings.SplitN(key, "/", 2)[0]
			if rng.IntN(10) == 0 {
				if err := st.Delete(t.Context(), key); err != nil {
					t.Fatal(err)
				}
				kind += " gone"
			} else {
				bit := rng.IntN(8 * len(body))
				st.Tamper(key, func(p []byte) []byte { p[bit/8] ^= 1 << (bit % 8); return p })
			}
			kinds[kind]++
			spoilt(t, st, d, key)
		}
	}
	t.Logf("%v", kinds)
}

// spoilt reads and verifies the disk of a store in which one object is damaged.
func spoilt(t *testing.T, st store.Store, d *disk, key string) {
	r := newRig(vfs.NewCrash(), "/state")
	r.st = st
	h := r.start(t)
	defer func() { _ = r.c.Close() }()
	report, verr := Verify(t.Context(), h, "a", nil)
	if (verr == nil) == strings.HasPrefix(key, "volumes/") || verr == nil && len(report.Damage) == 0 {
		t.Errorf("%s: verify found %+v, %v", key, report, verr)
	}
	for _, dmg := range report.Damage {
		if dmg.Object != key && strings.HasPrefix(key, "packs/") || dmg.Len <= 0 || dmg.Off < 0 || dmg.Off+dmg.Len > d.v.Size() {
			t.Errorf("%s: verify reports %+v", key, dmg)
		}
	}
	v, err := Open(t.Context(), h, "a", OpenOptions{ReadOnly: true})
	if err != nil {
		if strings.HasPrefix(key, "volumes/") && (errors.Is(err, manifest.ErrDamaged) || errors.Is(err, manifest.ErrVersion) || errors.Is(err, ErrNotFound)) {
			return
		}
		t.Fatalf("%s: open: %v", key, err)
	}
	defer v.Kill(ErrClosed)
	p := make([]byte, 16<<10)
	for off := int64(0); off < v.Size(); off += int64(len(p)) {
		err := v.ReadAt(t.Context(), p, off)
		switch {
		case err == nil && !bytes.Equal(p, d.now[off:off+int64(len(p))]):
			t.Errorf("%s: read %d: wrong data", key, off)
		case err == nil:
		case h.Counters().Damaged == 0:
			t.Errorf("%s: read %d: not counted: %v", key, off, err)
		case !errors.Is(err, ErrDamaged) && !errors.Is(err, store.ErrNotFound):
			t.Errorf("%s: read %d: %v", key, off, err)
		case !named(report, off, int64(len(p))):
			t.Errorf("%s: read %d: %v; verify names other ranges only: %+v", key, off, err, report.Damage)
		}
	}
}

func named(r Report, off, n int64) bool {
	for _, d := range r.Damage {
		if d.Off < off+n && off < d.Off+d.Len {
			return true
		}
	}
	return false
}

// TestFlippedBitsInCleanFrames flips bits in the clean cache while the daemon is down: what they hit is fetched again.
func TestFlippedBitsInCleanFrames(t *testing.T) {
	objects, d := stocked(t)
	r := newDiskRig(t)
	r.st = copied(t, objects)
	open := func() {
		d.v = r.open(t, "a", OpenOptions{ReadOnly: true})
		if got, err := d.content(); err != nil || firstDiff(got, d.now) >= 0 {
			t.Fatalf("wrong from byte %d, %v", firstDiff(got, d.now), err)
		}
	}
	open()
	damaged := uint64(0)
	for round := range 20 {
		r.kill(d.v, false)
		flipFiles(t, r.fs, filepath.Join(r.dir, "cache"), ".frames", rand.New(rand.NewPCG(5, uint64(round))))
		open()
		damaged += r.c.Stats().Damaged
	}
	r.kill(d.v, false)
	if damaged == 0 {
		t.Error("no damaged frame was noticed")
	}
}

// flipFiles flips bits here and there in files.
func flipFiles(t *testing.T, fs vfs.FS, dir, suffix string, rng *rand.Rand) {
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, suffix) {
			continue
		}
		f, err := fs.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		size, _ := f.Size()
		for range 8 {
			var b [1]byte
			at := rng.Int64N(size)
			if _, err := f.ReadAt(b[:], at); err != nil {
				t.Fatal(err)
			}
			b[0] ^= 1 << rng.IntN(8)
			if _, err := f.WriteAt(b[:], at); err != nil {
				t.Fatal(err)
			}
		}
		_ = f.Close()
	}
}

// TestDamagedIndexInTheCache: a raw index in the clean cache that rots after it was checked is fetched again, and never EIO.
func TestDamagedIndexInTheCache(t *testing.T) {
	r := newRig(vfs.NewCrash(), "/state")
	st := mem.New()
	r.st, r.tuning.InlineBytes = st, 1
	v := r.open(t, "a", OpenOptions{Create: 1 << 20})
	want := bytes.Repeat([]byte{'1'}, 64<<10)
	if err := v.WriteAt(t.Context(), want, 0, false); err != nil {
		t.Fatal(err)
	}
	mustSync(t, v)
	r.close(t, v)
	v = r.open(t, "a", OpenOptions{})
	defer r.kill(v, false)
	key := frameKey(v.currentView().man.Tail[0].Ref.Hash, indexFrame)
	r.c.Put(key, []byte("rotten"))
	got := make([]byte, len(want))
	if err := v.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("wrong from byte %d, %v", firstDiff(got, want), err)
	}
	if raw := r.h.cached(key); string(raw) == "rotten" || raw == nil {
		t.Errorf("the cache has %q", raw)
	}
	if n := r.c.Stats().Damaged; n != 1 {
		t.Errorf("%d counted", n)
	}
	// Damage in the store is what it was.
	r.h.shared().indexes.byKey = nil
	r.c.Drop(key)
	ref := v.currentView().man.Tail[0].Ref
	st.Tamper(ref.Hash.Key(), func(b []byte) []byte {
		off, _ := ref.IndexRange()
		b[off] ^= 1
		return b
	})
	if err := v.ReadAt(t.Context(), make([]byte, 4096), 0); !errors.Is(err, ErrDamaged) {
		t.Errorf("damaged in the store: %v", err)
	}
}
