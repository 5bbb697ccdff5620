package gc_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/gc"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/storetest"
)

// packs uploads n packs that do not overlap.
func (w *world) packs(n int) (refs []pack.Ref) {
	for i := range n {
		refs = append(refs, w.pack(uint64(10*i)))
	}
	return refs
}

func TestTrashKeepsAVolumeForTheGraceTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		v := w.volume("v", w.pack(5))
		w.level(v, w.packs(600)...)
		w.level(v, w.packs(3)...) // some of that is garbage now
		before := v.Current()
		time.Sleep(2 * manifest.Grace)
		w.trash("v")
		r := w.run()
		if r.Roots != 2 || r.Deleted == 0 || r.Live != w.objects() || r.Kept != 0 {
			t.Fatalf("%+v with %d objects", r, w.objects())
		}
		w.intact()
		key := w.keys("trash/")
		body, _, err := w.inner.Get(t.Context(), key[0], store.Range{})
		if err != nil {
			t.Fatal(err)
		}
		if m, err := manifest.Decode(body); err != nil || m.Name != "v" || !slices.Equal(m.Levels, before.Levels) || len(m.Tail) != 1 {
			t.Fatalf("%+v, %v", m, err)
		}
		time.Sleep(manifest.Grace)
		if r := w.run(); r.Expired != 0 || r.Deleted != 0 { // not a moment older than the grace time
			t.Fatalf("%+v", r)
		}
		time.Sleep(time.Second)
		if r := w.run(); r.Expired != 1 || r.Live != 0 {
			t.Fatalf("%+v", r)
		}
		if keys := w.left(""); len(keys) != 0 {
			t.Fatalf("left: %v", keys)
		}
	})
}

func TestTrashFencesTheWriter(t *testing.T) {
	w := newWorld(t)
	v := w.volume("v", w.pack(1))
	gate := w.faults.Gate(after(1, storetest.On(store.OpPut, "volumes/")))
	done := make(chan error, 1)
	go func() { done <- gc.Trash(t.Context(), w.faults, "v") }()
	held := <-gate.C // the copy is made, the volume still there
	if err := v.Replace(t.Context(), func(m *manifest.Manifest) { m.Tail = nil }); !errors.Is(err, manifest.ErrFenced) {
		t.Errorf("%v", err)
	}
	if _, err := manifest.Read(t.Context(), w.inner, "v"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("it can be attached: %v", err)
	}
	held.Release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := gc.Trash(t.Context(), w.inner, "v"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
}

// after matches what match does, from the request after the first n of them on.
func after(n int, match storetest.Match) storetest.Match {
	return func(q storetest.Request) bool {
		if match(q) {
			n--
		}
		return match(q) && n < 0
	}
}

// An interrupted deletion has lost nothing, and is finished by another.
func TestTrashInterrupted(t *testing.T) {
	for op, requests := range map[store.Op]int{store.OpGet: 1, store.OpPut: 3} {
		for k := range requests + 1 {
			w := newWorld(t)
			w.volume("v", w.pack(1))
			w.faults.Always(after(k, storetest.On(op, "")), storetest.Fail(store.ErrDenied))
			err := gc.Trash(t.Context(), w.faults, "v")
			if (err == nil) != (k == requests) || len(w.left("volumes/", "trash/")) == 0 || err == nil && len(w.left("volumes/")) > 0 {
				t.Fatalf("%s %d: %v, left: %v", op, k, err, w.left(""))
			}
			if err == nil {
				continue
			}
			w.faults.Clear()
			if err := gc.Trash(t.Context(), w.faults, "v"); err != nil || len(w.left("volumes/")) > 0 || len(w.keys("trash/")) == 0 {
				t.Fatalf("%s %d: %v", op, k, err)
			}
		}
	}
}

// A volume that was never written leaves nothing in the trash.
func TestTrashOfAnEmptyVolume(t *testing.T) {
	w := newWorld(t)
	w.volume("v")
	w.trash("v")
	if keys := w.left(""); len(keys) > 0 {
		t.Errorf("left: %v", keys)
	}
	w.volume("v")
}

// Two who delete a volume at the same time both succeed, or one learns that the other was first; and it is in the trash.
func TestTrashTwice(t *testing.T) {
	for n := range 3 {
		w := newWorld(t)
		w.volume("v", w.pack(1))
		gate := w.faults.Gate(after(n, storetest.On(store.OpPut, "")))
		done := make(chan error, 1)
		go func() { done <- gc.Trash(t.Context(), w.faults, "v") }()
		<-gate.C
		w.trash("v")
		gate.Open()
		if err := <-done; err != nil && (n > 0 || !errors.Is(err, manifest.ErrFenced)) {
			t.Errorf("after %d requests: %v", n, err)
		}
		if len(w.left("volumes/")) > 0 || len(w.keys("trash/")) == 0 {
			t.Errorf("after %d requests, left: %v", n, w.left(""))
		}
	}
}

// As long as any root or page can't be read, nothing is deleted, not even what is surely garbage.
func TestUnreadableMeansHandsOff(t *testing.T) {
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	for name, spoil := range map[string]func(w *world, v *manifest.Manifest) (want error){
		"damaged manifest": func(w *world, _ *manifest.Manifest) error {
			w.inner.Tamper("volumes/v/manifest", flip)
			return manifest.ErrDamaged
		},
		"not a manifest": func(w *world, _ *manifest.Manifest) error {
			w.put("images/notes.txt", []byte("hello"))
			return manifest.ErrDamaged
		},
		"newer manifest": func(w *world, v *manifest.Manifest) error {
			m := v.Clone()
			m.Extra = []manifest.Section{{Tag: 9}}
			w.put("images/new", m.Encode())
			return manifest.ErrVersion
		},
		"damaged page": func(w *world, v *manifest.Manifest) error {
			w.inner.Tamper(v.Levels[0].Key(), flip)
			return manifest.ErrDamaged
		},
		"missing page": func(w *world, v *manifest.Manifest) error {
			if err := w.inner.Delete(w.Context(), v.Levels[0].Key()); err != nil {
				w.Fatal(err)
			}
			return store.ErrNotFound
		},
		"unreadable trash": func(w *world, v *manifest.Manifest) error {
			w.put("trash/x", []byte("hello"))
			return manifest.ErrDamaged
		},
		"no list":    fails(store.OpList, "trash/"),
		"no root":    fails(store.OpGet, "volumes/"),
		"no page":    fails(store.OpGet, "maps/"),
		"no clock":   fails(store.OpNow, ""),
		"stale list": staleList,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				v := w.volume("v")
				w.level(v, w.packs(10)...)
				w.packs(3) // garbage
				w.put("trash/old", v.Raw())
				time.Sleep(2 * manifest.Grace)
				before := len(w.keys("packs/", "trash/old"))
				want := spoil(w, v.Current())
				if r, err := gc.Run(t.Context(), w.faults, gc.Options{}); !errors.Is(err, want) || r.Deleted+r.Expired != 0 {
					t.Errorf("%+v, %v", r, err)
				}
				if n := len(w.keys("packs/", "trash/old")); n != before || w.faults.Count(store.OpDelete) > 0 {
					t.Errorf("%d objects, there were %d", n, before)
				}
			})
		})
	}
}

func fails(op store.Op, prefix string) func(w *world, _ *manifest.Manifest) error {
	return func(w *world, _ *manifest.Manifest) error {
		w.faults.Always(storetest.On(op, prefix), storetest.Unavailable())
		return store.ErrUnavailable
	}
}

// staleList: the list names a volume that was deleted since, and not its copy in the trash.
func staleList(w *world, _ *manifest.Manifest) error {
	if err := w.faults.FreezeLists(w.Context()); err != nil {
		w.Fatal(err)
	}
	w.trash("v")
	return store.ErrUnavailable
}

// A list of packs that is out of date makes the collector miss garbage, or delete twice, but nothing else.
func TestStalePackList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		v := w.volume("v", w.packs(3)...)
		w.packs(2)
		time.Sleep(2 * manifest.Grace)
		if err := w.faults.FreezeLists(t.Context()); err != nil {
			t.Fatal(err)
		}
		next := w.pack(100)
		w.replace(v, func(m *manifest.Manifest) { m.Tail = append(m.Tail, manifest.TailEntry{Ref: next}) })
		for range 2 {
			if r := w.run(); r.Deleted != 2 {
				t.Fatalf("%+v", r)
			}
			w.intact()
		}
		w.faults.ThawLists()
		if r := w.run(); r.Deleted != 0 || r.Live != 4 {
			t.Fatalf("%+v", r)
		}
	})
}

func TestDryRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		v := w.volume("v", w.packs(3)...)
		w.put("trash/old", v.Raw())
		garbage := w.packs(2)
		time.Sleep(2 * manifest.Grace)
		w.packs(4)
		var last gc.Report
		dry, err := gc.Run(t.Context(), w.faults, gc.Options{DryRun: true, Progress: func(r gc.Report) { last = r }})
		if err != nil || w.faults.Count(store.OpDelete, store.OpPut) > 0 || last.Deleted != 2 {
			t.Fatalf("%v, %d changes, progress %+v", err, w.faults.Count(store.OpDelete, store.OpPut), last)
		}
		want := gc.Report{Roots: 1, Expired: 1, Live: 3, Kept: 4, Deleted: 2, Bytes: int64(garbage[0].Size) + int64(garbage[1].Size)}
		if dry != want {
			t.Errorf("dry run: %+v, want %+v", dry, want)
		}
		if r := w.run(); r != want || w.objects() != 7 {
			t.Errorf("%+v, want %+v, %d objects", r, want, w.objects())
		}
	})
}

func TestGraceIsAnOption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.packs(2)
		w.put("packs/README", nil) // not ours
		time.Sleep(time.Hour)
		r, err := gc.Run(t.Context(), w.inner, gc.Options{Grace: time.Minute})
		if err != nil || r.Deleted != 2 || r.Kept != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
	})
}

// litter puts n objects of garbage.
func (w *world) litter(n int) {
	r := rand.New(rand.NewPCG(1, 1))
	for range n {
		name := make([]byte, 32)
		for i := range name {
			name[i] = byte(r.Uint32())
		}
		s := hex.EncodeToString(name)
		w.put(fmt.Sprintf("packs/%s/%s", s[:2], s), []byte{1})
	}
}

// A collector that is slow, or was asleep, stops when its marks are too old.
func TestOldMarksDeleteNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.litter(1000)
		time.Sleep(2 * manifest.Grace)
		w.faults.Times(1, storetest.On(store.OpList, "packs/"), storetest.Slow(manifest.Grace))
		if r, err := gc.Run(t.Context(), w.faults, gc.Options{}); !errors.Is(err, manifest.ErrLate) || r.Deleted != 0 || w.objects() != 1000 {
			t.Fatalf("%+v, %v", r, err)
		}
		rule := w.faults.Always(storetest.On(store.OpDelete, ""), storetest.Slow(time.Hour))
		r, err := gc.Run(t.Context(), w.faults, gc.Options{})
		if !errors.Is(err, manifest.ErrLate) || r.Deleted == 0 || r.Deleted+w.objects() != 1000 {
			t.Fatalf("%+v, %v, %d objects", r, err, w.objects())
		}
		rule.Remove()
		w.run()
		if w.objects() != 0 {
			t.Fatalf("%d objects", w.objects())
		}
	})
}

// An error in the middle of the sweep leaves what is live alone, and the next run goes on.
func TestSweepInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.volume("v", w.packs(5)...)
		w.litter(500)
		time.Sleep(2 * manifest.Grace)
		skip := 300
		w.faults.Always(func(q storetest.Request) bool {
			if q.Op == store.OpDelete {
				skip--
			}
			return q.Op == store.OpDelete && skip < 0
		}, storetest.Fail(store.ErrDenied))
		if r, err := gc.Run(t.Context(), w.faults, gc.Options{}); !errors.Is(err, store.ErrDenied) || r.Deleted == 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		w.intact()
		w.faults.Clear()
		w.run()
		if w.objects() != 5 {
			t.Fatalf("%d objects", w.objects())
		}
	})
}

// Pages that forks share are read once.
func TestSharedPagesAreReadOnce(t *testing.T) {
	w := newWorld(t)
	v := w.volume("v")
	w.level(v, w.packs(1500)...) // 3 leaves and a root
	for i := range 10 {
		f := w.volume(fmt.Sprintf("f%d", i))
		w.replace(f, func(m *manifest.Manifest) { m.Levels = v.Current().Levels })
	}
	w.faults.ResetCounts()
	if r := w.run(); r.Roots != 11 || r.Live != 1504 {
		t.Fatalf("%+v", r)
	}
	if n := w.faults.Count(store.OpGet); n != 11+4 {
		t.Errorf("%d requests", n)
	}
}

// A volume drops a page while the collector reads it, and another collector takes the page: the volume is read again, to the end.
func TestPageGoneUnderTheMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		v := w.volume("v")
		w.level(v, w.packs(1500)...)
		time.Sleep(2 * manifest.Grace)
		gets := 0
		st := &hook{w.faults, nil}
		st.f = func() {
			if gets++; gets == 3+1+1+3 { // lists, root, top page, before its last leaf
				last := w.pack(14990)
				w.replace(v, func(m *manifest.Manifest) {
					root, err := w.pages.Update(context.Background(), m.Levels[0], 14990, 14991, []pack.Ref{last})
					if err != nil {
						t.Fatal(err)
					}
					m.Levels = []manifest.Root{root}
				})
				if _, err := gc.Run(t.Context(), w.inner, gc.Options{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := gc.Run(t.Context(), st, gc.Options{}); err != nil || gets < 8 {
			t.Fatal(err)
		}
		w.intact()
		if n := w.objects(); n != 1504 {
			t.Fatalf("%d objects", n)
		}
	})
}

// A page that is missing at one moment and there at the next is not taken for one whose packs are marked.
func TestPageMissingForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		v := w.volume("v")
		w.level(v, w.packs(1500)...)
		time.Sleep(2 * manifest.Grace)
		for k := range 4 {
			skip := k
			w.faults.Once(func(q storetest.Request) bool {
				if !storetest.On(store.OpGet, "maps/")(q) {
					return false
				}
				skip--
				return skip < 0
			}, storetest.Fail(store.ErrNotFound))
			if r := w.run(); r.Live != 1504 || r.Deleted != 0 {
				t.Fatalf("page %d: %+v", k, r)
			}
		}
	})
}
