package volume

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/gc"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/storetest"
)

// besieged is a store in which a collector with a short grace time runs after each change, when what was changed is older than that.
type besieged struct {
	store.Store
	turn    chan struct{} // holds a value while a collector runs
	v       *Volume       // who is asked; may be nil
	failure error
	refused []*gc.OpenError
	deleted int
}

func (b *besieged) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	info, err := b.Store.Put(ctx, key, body, c)
	b.collect(ctx)
	return info, err
}

func (b *besieged) collect(ctx context.Context) {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	time.Sleep(2 * time.Second)
	rep, err := gc.Run(ctx, b.Store, gc.Options{Grace: time.Second, Quiet: func() map[[16]byte]bool {
		quiet := map[[16]byte]bool{}
		if b.v != nil {
			if log, ok := b.v.Quiet(); ok {
				quiet[log] = true
			}
		}
		return quiet
	}})
	var open *gc.OpenError
	if errors.As(err, &open) {
		b.refused = append(b.refused, open)
	} else if err != nil {
		b.failure = err
	}
	b.deleted += rep.Deleted
}

// TestCollectorAtEachRequest: a collector that waits hardly at all runs whenever a disk has changed the store, in the middle of
// batches and merges. It is refused there, gets its garbage in between, and takes nothing that the disk needs.
func TestCollectorAtEachRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newSites(t)
		st := &besieged{Store: a.st, turn: make(chan struct{}, 1)}
		a.tuning.InlineBytes, a.tuning.TailPacks, a.st = 1, 1, st
		a.attach(OpenOptions{Create: siteSize})
		st.v = a.v
		for range 6 {
			a.write(60)
			a.sync()
			synctest.Wait() // merges
			for a.v.compacting.Load() {
				time.Sleep(time.Second)
			}
			st.collect(t.Context())
		}
		a.detach()
		if st.failure != nil || len(st.refused) < 10 || st.deleted < 10 {
			t.Errorf("%v, refused %d times, %d objects deleted", st.failure, len(st.refused), st.deleted)
		}
		b.attach(OpenOptions{})
		b.is(a.now, "A")
		b.detach()
	})
}

// TestCollectorDuringSalvage: nobody has the disk that is being made, but it is announced.
func TestCollectorDuringSalvage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newSites(t)
		st := &besieged{Store: a.st, turn: make(chan struct{}, 1)}
		a.tuning.InlineBytes = 1
		a.attach(OpenOptions{Create: siteSize})
		a.write(60)
		unsent := a.writeUnsent()
		want := bytes.Clone(a.now)
		a.die()
		b.attach(OpenOptions{Takeover: true})
		b.detach()
		a.st = st
		a.isForeign(a.tryOpen(OpenOptions{}), unsent)
		st.v, st.refused = nil, nil
		a.salvaged(want, unsent)
		if st.failure != nil || len(st.refused) == 0 || !st.refused[0].Making || st.refused[0].Name != "rescue" || st.refused[0].Owner.Host != "host1" {
			t.Errorf("%v, refused: %v", st.failure, st.refused)
		}
		for info, err := range st.List(t.Context(), manifest.WritersPrefix, "") {
			t.Errorf("left: %s, %v", info.Key, err)
		}
		_ = a.c.Close()
	})
}

// TestSalvageThatMayYetComeToBe stays announced.
func TestSalvageThatMayYetComeToBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newSites(t)
		a.attach(OpenOptions{Create: siteSize})
		a.writeUnsent()
		a.die()
		b.attach(OpenOptions{Takeover: true})
		b.detach()
		f := storetest.NewFault(a.st)
		a.st = f
		f.Always(storetest.On(store.OpPut, "volumes/rescue/"), storetest.Fail(store.ErrDenied))
		if err := Salvage(t.Context(), a.start(t), "d", "rescue", func(int64, int64) {}); !errors.Is(err, manifest.ErrUnsettled) {
			t.Fatal(err)
		}
		var open *gc.OpenError
		if _, err := gc.Run(t.Context(), f, gc.Options{Grace: time.Second}); !errors.As(err, &open) || !open.Making {
			t.Errorf("%v", err)
		}
		_ = a.c.Close()
	})
}

// TestQuiet: a disk is not quiet while an object is on its way, nor while it is unknown what became of a manifest.
func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, d := filled(t)
		defer func() { r.kill(d.v, false) }()
		quiet := func(want bool, when string) {
			t.Helper()
			synctest.Wait()
			log, is := d.v.Quiet()
			if is != want || want && log != d.v.currentView().man.Log {
				t.Errorf("%s: %v", when, is)
			}
		}
		quiet(true, "all is in the store")
		for _, prefix := range []string{"packs/", "volumes/"} {
			gate := f.Gate(storetest.On(store.OpPut, prefix))
			if err := d.v.WriteAt(t.Context(), d.now[:1<<16], 0, false); err != nil {
				t.Fatal(err)
			}
			quiet(true, "written, in the log only")
			synced := make(chan error)
			go func() { synced <- d.v.Sync(t.Context(), nil) }()
			held := <-gate.C
			quiet(false, prefix+" is on its way")
			gate.Open()
			held.Release()
			if err := <-synced; err != nil {
				t.Fatal(err)
			}
			quiet(true, prefix+" has arrived")
		}
		f.Always(storetest.On(store.OpPut, "volumes/"), storetest.Fail(store.ErrDenied))
		if err := d.v.WriteAt(t.Context(), d.now[:1<<16], 0, false); err != nil {
			t.Fatal(err)
		}
		if err := d.v.Sync(t.Context(), nil); !errors.Is(err, store.ErrDenied) {
			t.Fatal(err)
		}
		quiet(false, "the manifest is not settled, and nobody tries")
		f.Clear()
		mustSync(t, d.v)
		quiet(true, "settled")
	})
}
