package gc_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/gc"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/storetest"
)

const short = time.Minute

// attach opens a volume for a writer, close says that it is done.
func (w *world) attach(c *manifest.Cell, log byte) {
	w.Helper()
	w.set(c, func(m *manifest.Manifest) {
		m.Closed, m.Log, m.Owner.Host, m.Since = false, [16]byte{log}, "beta", time.Unix(9, 0).UTC()
	})
}

func (w *world) set(c *manifest.Cell, build func(m *manifest.Manifest)) {
	w.Helper()
	if err := c.Replace(w.Context(), build); err != nil {
		w.Fatal(err)
	}
}

func (w *world) close(c *manifest.Cell) {
	w.Helper()
	w.set(c, func(m *manifest.Manifest) { m.Closed = true })
}

func quiet(logs ...byte) func() map[[16]byte]bool {
	return func() map[[16]byte]bool {
		q := map[[16]byte]bool{}
		for _, l := range logs {
			q[[16]byte{l}] = true
		}
		return q
	}
}

// A short grace time is refused as long as anybody may be about to name what is older, and only then.
func TestShortGrace(t *testing.T) {
	copyOf := func(w *world, key string, c *manifest.Cell) {
		w.attach(c, 1)
		w.put(key, c.Raw())
		w.close(c)
	}
	announce := func(w *world) {
		m := &manifest.Manifest{Name: "new", Size: 4096, Sector: 4096, Owner: manifest.Owner{Host: "beta"}, Since: time.Unix(9, 0).UTC()}
		if _, err := manifest.Announce(w.Context(), w.inner, m); err != nil {
			w.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		prepare func(w *world, a, b *manifest.Cell)
		options gc.Options
		refused string // who is named
	}{
		"all closed":             {func(*world, *manifest.Cell, *manifest.Cell) {}, gc.Options{Grace: short}, ""},
		"one open":               {func(w *world, _, b *manifest.Cell) { w.attach(b, 1) }, gc.Options{Grace: short}, "b"},
		"one open, a dry run":    {func(w *world, _, b *manifest.Cell) { w.attach(b, 1) }, gc.Options{Grace: short, DryRun: true}, "b"},
		"almost the grace time":  {func(w *world, _, b *manifest.Cell) { w.attach(b, 1) }, gc.Options{Grace: manifest.Grace - 1}, "b"},
		"the grace time":         {func(w *world, _, b *manifest.Cell) { w.attach(b, 1) }, gc.Options{Grace: manifest.Grace}, ""},
		"quiet":                  {func(w *world, a, b *manifest.Cell) { w.attach(a, 1); w.attach(b, 2) }, gc.Options{Grace: short, Quiet: quiet(1, 2)}, ""},
		"one quiet":              {func(w *world, a, b *manifest.Cell) { w.attach(a, 1); w.attach(b, 2) }, gc.Options{Grace: short, Quiet: quiet(1)}, "b"},
		"quiet, but taken over":  {func(w *world, a, _ *manifest.Cell) { w.attach(a, 1); w.attach(a, 2) }, gc.Options{Grace: short, Quiet: quiet(1)}, "a"},
		"open when deleted":      {func(w *world, a, _ *manifest.Cell) { w.attach(a, 1); w.trash("a") }, gc.Options{Grace: short}, ""},
		"a snapshot":             {func(w *world, a, _ *manifest.Cell) { copyOf(w, "volumes/a/snapshots/1", a) }, gc.Options{Grace: short}, ""},
		"an image":               {func(w *world, a, _ *manifest.Cell) { copyOf(w, "images/a", a) }, gc.Options{Grace: short}, ""},
		"a volume is being made": {func(w *world, _, _ *manifest.Cell) { announce(w) }, gc.Options{Grace: short, Quiet: quiet(0)}, "new"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, b := w.volume("a", w.pack(1)), w.volume("b", w.pack(1))
				w.close(a)
				w.close(b)
				w.pack(2)
				time.Sleep(manifest.Grace + time.Hour)
				tt.prepare(w, a, b)
				before := w.objects()
				r, err := gc.Run(t.Context(), w.inner, tt.options)
				var open *gc.OpenError
				if tt.refused == "" {
					if err != nil || r.Deleted != 1 {
						t.Fatalf("%+v, %v", r, err)
					}
				} else if !errors.As(err, &open) || open.Name != tt.refused || open.Owner.Host != "beta" || !open.Since.Equal(time.Unix(9, 0)) || w.objects() != before {
					t.Fatalf("%+v, %v", r, err)
				}
				w.intact()
			})
		})
	}
}

// What a maker of volumes leaves behind when it dies counts for the grace time.
func TestAnnouncementExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if _, err := manifest.Announce(t.Context(), w.inner, &manifest.Manifest{Name: "new", Size: 4096, Sector: 4096}); err != nil {
			t.Fatal(err)
		}
		var open *gc.OpenError
		time.Sleep(manifest.Grace)
		if _, err := gc.Run(t.Context(), w.inner, gc.Options{Grace: short}); !errors.As(err, &open) || !open.Making {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if _, err := gc.Run(t.Context(), w.inner, gc.Options{Grace: short}); err != nil {
			t.Fatal(err)
		}
		if keys := w.keys(""); len(keys) > 0 {
			t.Errorf("left: %v", keys)
		}
	})
}

// Nothing is deleted when it can't be told who writes.
func TestUnknownWritersMeanHandsOff(t *testing.T) {
	for name, rule := range map[string]storetest.Match{
		"no list": storetest.On(store.OpList, manifest.WritersPrefix), "no note": storetest.On(store.OpGet, manifest.WritersPrefix),
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.put(manifest.WritersPrefix+"x", []byte("hello"))
			w.pack(1)
			time.Sleep(time.Hour)
			for _, want := range []error{manifest.ErrDamaged, store.ErrUnavailable} {
				if _, err := gc.Run(t.Context(), w.faults, gc.Options{Grace: short}); !errors.Is(err, want) || w.objects() != 1 {
					t.Errorf("%s: %v", name, err)
				}
				w.faults.Always(rule, storetest.Unavailable())
			}
		})
	}
}

// tales are what writers do while a collector with a short grace time runs. What they write before it begins is older than that.
var tales = map[string]func(w *world) (steps []func(), quiet func() map[[16]byte]bool){
	"a writer elsewhere": func(w *world) ([]func(), func() map[[16]byte]bool) {
		v := w.volume("v")
		return writing(w, v, nil), nil
	},
	"a writer here": func(w *world) ([]func(), func() map[[16]byte]bool) {
		v := w.volume("v")
		busy := false
		return writing(w, v, &busy), func() map[[16]byte]bool {
			if busy {
				return nil
			}
			return quiet(1)()
		}
	},
	"a salvage": func(w *world) ([]func(), func() map[[16]byte]bool) {
		m := &manifest.Manifest{Name: "new", Size: 1 << 40, Sector: 4096, Closed: true}
		var done func()
		return []func(){
			func() {
				var err error
				if done, err = manifest.Announce(w.Context(), w.inner, m); err != nil {
					w.Fatal(err)
				}
			},
			func() { m.Tail = tail(w.pack(1)) },
			func() { m.Tail = append(m.Tail, tail(w.pack(2))...) },
			func() {
				if _, err := manifest.Create(w.Context(), w.inner, m); err != nil {
					w.Fatal(err)
				}
			},
			func() { done() },
		}, nil
	},
}

// writing attaches a volume, writes a pack, names it and detaches.
func writing(w *world, v *manifest.Cell, busy *bool) (steps []func()) {
	if busy == nil {
		busy = new(bool)
	}
	var next []manifest.TailEntry
	return []func(){
		func() { w.attach(v, 1) },
		func() { *busy = true; next = tail(w.pack(1)) },
		func() { w.set(v, func(m *manifest.Manifest) { m.Tail = next }); *busy = false },
		func() { w.close(v) },
	}
}

// Whatever falls between whichever requests of a collector with a short grace time, it is refused or deletes nothing that is named
// then or later.
func TestShortGraceAllInterleavings(t *testing.T) {
	for name, tale := range tales {
		outcomes := map[string]int{}
		n := 0
		synctest.Test(t, func(t *testing.T) { steps, _ := tale(newWorld(t)); n = len(steps) })
		runs := interleave(n, func(next func() int) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				steps, quiet := tale(w)
				did := 0
				upTo := func() {
					for n := next(); did < n; did++ {
						steps[did]()
					}
				}
				w.volume("old", w.pack(9))
				w.close(must(manifest.Read(t.Context(), w.inner, "old")))
				upTo()
				time.Sleep(2 * short)
				asked := func() map[[16]byte]bool {
					upTo()
					if quiet == nil {
						return nil
					}
					return quiet()
				}
				_, err := gc.Run(t.Context(), &hook{w.faults, upTo}, gc.Options{Grace: short, Quiet: asked})
				var open *gc.OpenError
				if err != nil && !errors.As(err, &open) {
					t.Fatal(err)
				}
				outcomes[fmt.Sprint("refused: ", err != nil)]++
				for ; did < len(steps); did++ {
					steps[did]()
				}
				w.intact()
				if _, err := gc.Run(t.Context(), w.inner, gc.Options{Grace: short}); err != nil {
					t.Fatalf("when all is closed: %v", err)
				}
				w.intact()
			})
		})
		t.Logf("%s: %d interleavings, %v", name, runs, outcomes)
		if len(outcomes) != 2 {
			t.Error("the interesting cases did not occur")
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
