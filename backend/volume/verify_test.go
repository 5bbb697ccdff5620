package volume

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/vfs"
)

// TestVerifyNamesEachByte: for a damaged frame Verify names exactly the sectors that lie in it, for damage elsewhere in a
// pack all it may hold; and what can be read is what it does not name.
func TestVerifyNamesEachByte(t *testing.T) {
	r := newRig(vfs.NewCrash(), "/state")
	st := mem.New()
	r.st, r.tuning.NoCompaction, r.tuning.BatchBytes = st, true, 1<<20
	rng := rand.New(rand.NewPCG(7, 7))
	v := r.open(t, "a", OpenOptions{Create: 4 << 20})
	random := func(off, n int64) {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		if err := v.WriteAt(t.Context(), p, off, false); err != nil {
			t.Fatal(err)
		}
	}
	random(20<<10, 200<<10) // frames of 108 and 92 KiB
	for i := range int64(10) {
		random(1<<20+i*40<<10, 4096+i%3*4096) // share frames
	}
	mustSync(t, v)
	src := v.currentView().tail[0]
	ix, err := r.h.index(t.Context(), src)
	if err != nil || src.pack != nil || len(ix.Frames) < 4 {
		t.Fatal(err, src, ix)
	}
	r.kill(v, false)

	key := src.ref.Hash.Key()
	whole, _, err := st.Get(t.Context(), key, store.Range{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range ix.Frames {
		f := ix.Frames[i]
		for _, at := range []uint32{f.Off, f.Off + f.Len/2, f.Off + f.Len - 1} {
			checkVerify(t, r, fmt.Sprintf("frame %d", i), broken(t, key, st, whole, at), inFrame(ix, uint32(i)), true)
		}
	}
	all := map[uint64]bool{}
	addSectors(all, src.ref.First, src.ref.End)
	index, _ := src.ref.IndexRange()
	for _, at := range []uint32{0, uint32(index), uint32(len(whole) - 1)} {
		checkVerify(t, r, fmt.Sprintf("byte %d", at), broken(t, key, st, whole, at), all, false)
	}
}

// broken copies a store with one bit of one object flipped.
func broken(t *testing.T, key string, st *mem.Store, whole []byte, at uint32) *mem.Store {
	all := map[string][]byte{}
	for in, err := range st.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		body, _, err := st.Get(t.Context(), in.Key, store.Range{})
		if err != nil {
			t.Fatal(err)
		}
		all[in.Key] = body
	}
	all[key] = slices.Clone(whole)
	all[key][at] ^= 4
	return copied(t, all)
}

func addSectors(set map[uint64]bool, first, end uint64) {
	for s := first; s < end; s++ {
		set[s] = true
	}
}

func inFrame(ix *pack.Index, frame uint32) map[uint64]bool {
	set := map[uint64]bool{}
	for _, e := range ix.Extents {
		if e.Frame == frame {
			addSectors(set, e.First, e.End())
		}
	}
	return set
}

// checkVerify compares the sectors that Verify names with those wanted, and, if all of these must be, with the unreadable ones.
func checkVerify(t *testing.T, r *rig, what string, st store.Store, want map[uint64]bool, unreadable bool) {
	t.Helper()
	cold := newRig(vfs.NewCrash(), "/state")
	cold.st = st
	report, err := Verify(t.Context(), cold.start(t), "a", nil)
	if err != nil {
		t.Fatal(err)
	}
	got := map[uint64]bool{}
	for _, d := range report.Damage {
		addSectors(got, uint64(d.Off/4096), uint64((d.Off+d.Len)/4096))
	}
	if !maps.Equal(got, want) {
		t.Errorf("%s: verify names %d sectors, want %d", what, len(got), len(want))
	}
	v := cold.open(t, "a", OpenOptions{ReadOnly: true})
	defer cold.kill(v, false)
	for s := range uint64(v.Size() / 4096) {
		if err := v.ReadAt(t.Context(), make([]byte, 4096), int64(s)*4096); err != nil && !want[s] {
			t.Errorf("%s: sector %d, which verify calls sound: %v", what, s, err)
		} else if err == nil && want[s] && unreadable {
			t.Errorf("%s: sector %d can be read", what, s)
		}
	}
}

// TestVerifyNamesPages: a damaged map page stands for the sectors below it, however many pages a level has; what is beside
// it is checked all the same, and the pages that a daemon has in memory hide nothing.
func TestVerifyNamesPages(t *testing.T) {
	const sectors = 1300
	r := newRig(vfs.NewCrash(), "/state")
	st := mem.New()
	r.st, r.tuning.BatchBytes, r.tuning.InlineBytes, r.tuning.TailPacks, r.tuning.LevelBytes = st, 4096, 1, 1, 1<<30
	r.tuning.NoCompaction = true
	v := r.open(t, "a", OpenOptions{Create: sectors * 4096})
	defer func() { r.kill(v, false) }()
	for i := range sectors {
		if err := v.WriteAt(t.Context(), blockOf(i, 1), int64(i)*4096, false); err != nil {
			t.Fatal(err)
		}
		if i%50 == 49 {
			mustSync(t, v)
			v.compactNow(t)
		}
	}
	var pages []manifest.Root
	enter := func(page manifest.Root) bool { pages = append(pages, page); return true }
	level := v.currentView().man.Levels[0]
	var packs []pack.Ref
	err := r.h.Pages.WalkPages(t.Context(), level, 0, sectors, enter, func(p pack.Ref) error { packs = append(packs, p); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) < 4 || level.Depth != 1 {
		t.Fatalf("%d pages", len(pages))
	}
	below := map[uint64]int{}
	for i, page := range pages {
		flip := func(key string) { st.Tamper(key, func(p []byte) []byte { p[len(p)/2] ^= 1; return p }) }
		flip(page.Key())
		beside := packs[len(packs)-1]
		if i > len(pages)/2 {
			beside = packs[0]
		}
		flip(beside.Hash.Key())
		rep, err := Verify(t.Context(), r.h, "a", nil)
		if err != nil {
			t.Fatal(err)
		}
		var found *Damage
		for j := range rep.Damage {
			if d := &rep.Damage[j]; d.Object == page.Key() {
				found = d
			} else if d.Object != beside.Hash.Key() {
				t.Errorf("page %d: verify names %s", i, d.Object)
			}
		}
		if found == nil || i > 0 && len(rep.Damage) != 2 {
			t.Fatalf("page %d: %+v", i, rep.Damage)
		}
		for s := found.Off / 4096; s < (found.Off+found.Len)/4096; s++ {
			below[uint64(s)]++
		}
		flip(page.Key())
		flip(beside.Hash.Key())
	}
	for _, p := range packs {
		for s := p.First; s < p.End; s++ {
			if below[s] != 2 { // the top and one leaf
				t.Fatalf("sector %d is below %d pages", s, below[s])
			}
		}
	}
}
