package gc_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/gc"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
)

// interleave runs test once for each way in which steps 0, 1, ... n-1, in this order, can fall before the requests of a collector.
// test calls next before each request; it tells how many steps have been done by then.
func interleave(n int, test func(next func() int)) (runs int) {
	var path []int // steps taken before each request
	for {
		runs++
		at, done := 0, 0
		test(func() int {
			if at == len(path) {
				path = append(path, 0)
			}
			done += path[at]
			at++
			return done
		})
		// Count up: the last place that can take one step more does, what follows starts from nothing.
		path = path[:at]
		for done == n && len(path) > 0 {
			last := len(path) - 1
			done -= path[last]
			path = path[:last]
		}
		if len(path) == 0 {
			return runs
		}
		path[len(path)-1]++
	}
}

// story is what people do to volumes while the collector runs. X is a pack that is older than the grace time; only copies of
// manifests keep it alive.
func story(w *world, fork bool) (steps []func()) {
	x := w.pack(1)
	r := w.volume("r", x)
	time.Sleep(2 * manifest.Grace)
	var snapshot []byte
	const at = "volumes/r/snapshots/00000000000000000001"
	steps = []func(){
		func() { snapshot = bytes.Clone(r.Raw()); w.put(at, snapshot) },
		func() { // compaction: r drops x
			y := w.pack(1)
			w.replace(r, func(m *manifest.Manifest) { m.Tail = tail(y) })
		},
		func() { w.volume("f", x) },                  // a fork starts from the snapshot
		func() { w.put("trash/snapshot", snapshot) }, // the snapshot is deleted
		func() {
			if err := w.inner.Delete(w.Context(), at); err != nil {
				w.Fatal(err)
			}
		},
		func() { w.trash("r") },
	}
	if !fork {
		steps = slices.Delete(steps, 2, 3)
	}
	return steps
}

// Whatever falls between whichever requests of the collector, no root names a missing object, then or later; and garbage reaches zero.
func TestStoryAllInterleavings(t *testing.T) {
	for _, tt := range []struct {
		steps  int
		fork   bool
		tagged bool // lists tell ETags
	}{{6, true, true}, {5, false, true}, {5, false, false}} {
		runs := interleave(tt.steps, func(next func() int) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				st := store.Store(w.faults)
				if !tt.tagged {
					st = untagged{st}
				}
				tell(w, st, tt.fork, next)
			})
		})
		t.Logf("%+v: %d interleavings", tt, runs)
	}
}

// untagged is a store whose lists have no ETags.
type untagged struct{ store.Store }

func (u untagged) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		for info, err := range u.Store.List(ctx, prefix, after) {
			info.ETag = ""
			if !yield(info, err) {
				return
			}
		}
	}
}

func tell(w *world, st store.Store, fork bool, next func() int) {
	steps, did := story(w, fork), 0
	upTo := func(n int) {
		for ; did < n; did++ {
			steps[did]()
		}
	}
	if _, err := gc.Run(w.Context(), &hook{st, func() { upTo(next()) }}, gc.Options{}); err != nil {
		w.Fatal(err)
	}
	w.intact()
	upTo(len(steps))
	w.intact()

	time.Sleep(manifest.Grace + time.Hour)
	w.run()
	w.intact()
	if fork {
		if n := w.objects(); n != 1 { // x, which f names
			w.Fatalf("%d objects are left", n)
		}
		w.trash("f")
		w.run()
		w.intact()
		time.Sleep(manifest.Grace + time.Hour)
		w.run()
	}
	if keys := w.left(""); len(keys) != 0 {
		w.Fatalf("left: %v", keys)
	}
}

// A batch that is uploaded twice, because its first manifest update came to nothing, leaves one copy in the end.
func TestSameBatchTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		v := w.volume("v")
		w.pack(1) // the process died here
		time.Sleep(manifest.Grace / 2)
		again := w.pack(1)
		w.replace(v, func(m *manifest.Manifest) { m.Tail = tail(again) })
		if r := w.run(); r.Deleted != 0 || r.Kept != 1 || r.Live != 1 {
			t.Fatalf("%+v", r)
		}
		time.Sleep(manifest.Grace/2 + time.Hour)
		if r := w.run(); r.Deleted != 1 || r.Live != 1 || r.Bytes != int64(again.Size) {
			t.Fatalf("%+v", r)
		}
		w.intact()
	})
}

// A writer is paused for twice the grace time between its pack and its manifest; the collector runs meanwhile, or not yet.
func TestPausedWriter(t *testing.T) {
	for _, collected := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			v := w.volume("v")
			p := w.pack(1)
			time.Sleep(2 * manifest.Grace)
			if collected {
				w.run()
			}
			name := func(r pack.Ref) error {
				return v.Publish(t.Context(), w.window, func(m *manifest.Manifest) { m.Tail = tail(r) })
			}
			if err := name(p); !errors.Is(err, manifest.ErrLate) {
				t.Fatal(err)
			}
			w.intact()
			if err := name(w.pack(1)); err != nil {
				t.Fatal(err)
			}
			w.run()
			w.intact()
			if n := w.objects(); n != 1 {
				t.Fatalf("%d objects", n)
			}
		})
	}
}

// The slowest writer that the rules allow: its manifest goes out when a quarter of the grace time has passed, and the collector
// that missed it sweeps at the last moment.
func TestSlowWriterAndSlowCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		v := w.volume("v")
		p := w.pack(1)
		time.Sleep(manifest.Grace/4 - time.Minute)
		lists := 0
		slow := &hook{w.faults, func() { lists++ }}
		slow.f = func() {
			if lists++; lists == 8 { // 3 lists, 1 root, 3 lists, then packs/: the mark is over
				w.replace(v, func(m *manifest.Manifest) { m.Tail = tail(p) })
				time.Sleep(manifest.Grace/4 - time.Minute)
			}
		}
		if _, err := gc.Run(t.Context(), slow, gc.Options{}); err != nil || lists < 8 {
			t.Fatal(err, lists)
		}
		w.intact()
	})
}
