package volume

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/gc"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
)

// interrupted is a store in which something happens, once, before packs are listed for a class, or a key is put.
type interrupted struct {
	store.Store
	class store.Class
	key   string
	by    func()
}

func (s *interrupted) now() {
	if by := s.by; by != nil {
		s.by = nil
		by()
	}
}

func (s *interrupted) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	if prefix == "packs/" && s.key == "" && store.ClassOf(ctx) == s.class {
		s.now()
	}
	return s.Store.List(ctx, prefix, after)
}

func (s *interrupted) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	if key == s.key {
		s.now()
	}
	return s.Store.Put(ctx, key, body, c)
}

const old = 2 * manifest.Grace

// takenOver is a disk of host a that b has taken over, with writes that only a has. All of it is of that age.
func takenOver(t *testing.T, levels bool, age time.Duration) (a, b *site) {
	a, b = newSites(t)
	a.tuning.InlineBytes, a.tuning.TailPacks, a.tuning.NoCompaction, b.tuning.TailPacks = 1, 1, true, 1
	a.attach(OpenOptions{Create: siteSize})
	a.write(60)
	a.writeUnsent()
	if levels {
		a.v.compactNow(t)
	}
	a.v.Kill(ErrClosed)
	time.Sleep(age)
	b.attach(OpenOptions{Takeover: true})
	return a, b
}

// replaces overwrites the disk and merges, so that the store's manifest names nothing of what it did.
func (s *site) replaces() {
	s.t.Helper()
	for range 3 {
		if err := s.v.WriteAt(s.t.Context(), s.now, 0, false); err != nil {
			s.t.Fatal(err)
		}
		s.sync()
	}
	s.v.compactNow(s.t)
}

// TestSalvageDuringASweep: a collector that has marked before the salvage knows nothing of the new disk, and sweeps what the
// old one named. The new one has all its objects all the same.
func TestSalvageDuringASweep(t *testing.T) {
	for _, levels := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a, b := takenOver(t, levels, old)
			b.replaces()
			salvaged := errors.New("it did not happen")
			st := &interrupted{Store: b.st, class: store.GC, by: func() { salvaged = Salvage(t.Context(), a.h, "d", "rescue", func(int64, int64) {}) }}
			rep, err := gc.Run(t.Context(), st, gc.Options{})
			if err != nil || rep.Deleted == 0 || salvaged != nil {
				t.Fatalf("%+v, %v, salvage: %v", rep, err, salvaged)
			}
			v := b.rig.open(t, "rescue", OpenOptions{})
			got := make([]byte, siteSize)
			if err := v.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, a.now) {
				t.Errorf("levels %v: wrong from byte %d, %v", levels, firstDiff(got, a.now), err)
			}
			if err := v.Close(t.Context()); err != nil {
				t.Error(err)
			}
			collect(t, b.st)
			if rep, err := Verify(t.Context(), b.h, "rescue", nil); err != nil || len(rep.Damage) > 0 {
				t.Errorf("levels %v: %+v, %v", levels, rep, err)
			}
			_ = a.c.Close()
			b.die()
		})
	}
}

// TestSalvageWhileTheOwnerReplaces: what the new disk relies on the old one for is dropped by that before the new one is made.
func TestSalvageWhileTheOwnerReplaces(t *testing.T) {
	for _, levels := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a, b := takenOver(t, levels, old)
			before := b.v.currentView().man
			a.h.Store = &interrupted{Store: a.st, key: manifest.Key("rescue"), by: b.replaces}
			if err := Salvage(t.Context(), a.h, "d", "rescue", func(int64, int64) {}); !errors.Is(err, errIncomplete) {
				t.Errorf("levels %v: %v", levels, err)
			}
			if _, err := manifest.ReadToDelete(t.Context(), b.st, "rescue"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("levels %v: the disk is there: %v", levels, err)
			}
			if err := Salvage(t.Context(), a.h, "d", "rescue", func(int64, int64) {}); err != nil { // with copies
				t.Errorf("levels %v: again: %v", levels, err)
			}
			if shared, others := a.rescued(before); shared > 0 || others == 0 {
				t.Errorf("levels %v: it names %d packs that may be swept", levels, shared)
			}
			_ = a.c.Close()
			b.die()
		})
	}
}

// rescued counts the packs of the salvaged disk that a manifest names too, and the others.
func (s *site) rescued(man *manifest.Manifest) (shared, others int) {
	s.t.Helper()
	v := newVolume(s.h, "rescue")
	its := map[pack.Hash]bool{}
	err := v.eachPack(s.t.Context(), man, func(r pack.Ref) error {
		its[r.Hash] = true
		return nil
	})
	cell, err2 := manifest.Read(s.t.Context(), s.h.Store, "rescue")
	if err != nil || err2 != nil {
		s.t.Fatal(err, err2)
	}
	err = v.eachPack(s.t.Context(), cell.Current(), func(r pack.Ref) error {
		if its[r.Hash] {
			shared++
		} else {
			others++
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return shared, others
}

// TestSalvageCopiesNoMoreThanItMust: what the old disk names, or what is young, is shared with it.
func TestSalvageCopiesNoMoreThanItMust(t *testing.T) {
	for _, young := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			age := old
			if young {
				age = time.Hour
			}
			a, b := takenOver(t, false, age)
			before := b.v.currentView().man
			if young {
				b.replaces()
			}
			if err := Salvage(t.Context(), a.h, "d", "rescue", func(int64, int64) {}); err != nil {
				t.Fatal(err)
			}
			if shared, _ := a.rescued(before); shared != len(before.Tail) || shared == 0 {
				t.Errorf("young %v: %d of %d packs are shared", young, shared, len(before.Tail))
			}
			_ = a.c.Close()
			b.die()
		})
	}
}
