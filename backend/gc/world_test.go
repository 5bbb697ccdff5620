package gc_test

import (
	"context"
	"iter"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"glidefs-appliance/backend/gc"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
)

// world is a store with volumes in it. Actors use inner; the collector goes through faults.
type world struct {
	*testing.T
	inner  *mem.Store
	faults *storetest.Fault
	pages  *manifest.Pages
	bld    *pack.Builder
	window manifest.Window
}

func newWorld(t *testing.T) *world {
	inner := mem.New()
	return &world{T: t, inner: inner, faults: storetest.NewFault(inner), pages: manifest.NewPages(inner, 100), bld: pack.NewBuilder(4096, nil)}
}

func (w *world) put(key string, body []byte) store.Info {
	w.Helper()
	info, err := w.inner.Put(w.Context(), key, body, store.Condition{})
	if err != nil {
		w.Fatal(err)
	}
	return info
}

// pack uploads a pack of one sector of zeros.
func (w *world) pack(sector uint64) pack.Ref {
	w.Helper()
	w.bld.Reset()
	w.bld.AddZero(sector, 1)
	p, err := w.bld.Finish()
	if err != nil {
		w.Fatal(err)
	}
	w.window = manifest.Window{Local: time.Now()}
	w.window.Store = w.put(p.Ref.Hash.Key(), p.Body).Modified
	return p.Ref
}

// volume makes a volume whose tail is refs.
func (w *world) volume(name string, refs ...pack.Ref) *manifest.Cell {
	w.Helper()
	m := &manifest.Manifest{Name: name, Size: 1 << 40, Sector: 4096, Owner: manifest.Owner{Host: "h"}, Tail: tail(refs...)}
	c, err := manifest.Create(w.Context(), w.inner, m)
	if err != nil {
		w.Fatal(err)
	}
	return c
}

func tail(refs ...pack.Ref) (t []manifest.TailEntry) {
	for _, r := range refs {
		t = append(t, manifest.TailEntry{Ref: r})
	}
	return t
}

func (w *world) replace(c *manifest.Cell, build func(m *manifest.Manifest)) {
	w.Helper()
	if err := c.Publish(w.Context(), w.window, build); err != nil {
		w.Fatal(err)
	}
}

// level moves packs at these sectors to the level of a volume.
func (w *world) level(c *manifest.Cell, refs ...pack.Ref) {
	w.Helper()
	w.replace(c, func(m *manifest.Manifest) {
		old := manifest.Root{}
		if len(m.Levels) > 0 {
			old = m.Levels[0]
		}
		root, err := w.pages.Update(w.Context(), old, refs[0].First, refs[len(refs)-1].End, refs)
		if err != nil {
			w.Fatal(err)
		}
		m.Levels = []manifest.Root{root}
	})
}

func (w *world) trash(name string) {
	w.Helper()
	if err := gc.Trash(w.Context(), w.inner, name); err != nil {
		w.Fatal(err)
	}
}

func (w *world) run() gc.Report {
	w.Helper()
	r, err := gc.Run(w.Context(), w.faults, gc.Options{})
	if err != nil {
		w.Fatal(err)
	}
	return r
}

func (w *world) keys(prefixes ...string) (keys []string) {
	w.Helper()
	for _, prefix := range prefixes {
		for info, err := range w.inner.List(w.Context(), prefix, "") {
			if err != nil {
				w.Fatal(err)
			}
			keys = append(keys, info.Key)
		}
	}
	return keys
}

// left is keys without tombstones.
func (w *world) left(prefixes ...string) []string {
	w.Helper()
	return slices.DeleteFunc(w.keys(prefixes...), func(key string) bool {
		body, _, err := w.inner.Get(w.Context(), key, store.Range{})
		if err != nil {
			w.Fatal(err)
		}
		m, err := manifest.Decode(body)
		return err == nil && m.Tombstone() && key == manifest.Key(m.Name)
	})
}

// objects counts packs and pages.
func (w *world) objects() int { return len(w.keys("packs/", "maps/")) }

// intact checks that no root names a missing object, but for trash roots that may be restored no more.
func (w *world) intact() {
	w.Helper()
	there := map[string]bool{}
	for _, key := range w.keys("") {
		there[key] = true
	}
	for _, key := range w.keys("volumes/", "images/", "trash/") {
		body, info, err := w.inner.Get(w.Context(), key, store.Range{})
		if err != nil {
			w.Fatal(err)
		}
		if strings.HasPrefix(key, "trash/") && time.Since(info.Modified) > manifest.Grace {
			continue
		}
		m, err := manifest.Decode(body)
		if err != nil {
			w.Fatal(err)
		}
		named := func(key string) {
			if !there[key] {
				w.Fatalf("%s names %s, which is gone", m.Name, key)
			}
		}
		for _, e := range m.Tail {
			named(e.Ref.Hash.Key())
		}
		fresh := manifest.NewPages(w.inner, 10) // a cached page proves nothing
		for _, l := range m.Levels {
			err := fresh.WalkPages(w.Context(), l, 0, math.MaxUint64,
				func(r manifest.Root) bool { named(r.Key()); return true },
				func(r pack.Ref) error { named(r.Hash.Key()); return nil })
			if err != nil {
				w.Fatal(err)
			}
		}
	}
}

// hook is a store that runs f before each request of the collector.
type hook struct {
	store.Store
	f func()
}

func (h *hook) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	h.f()
	return h.Store.Get(ctx, key, r)
}

func (h *hook) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	h.f()
	return h.Store.List(ctx, prefix, after)
}
