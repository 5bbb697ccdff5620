package gc_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"glidefs-appliance/backend/gc"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/storetest"
)

// lossy is a store behind a network that loses PUTs, DELETEs and their answers, or delivers them late, as choose says, until its
// faults are used up.
type lossy struct {
	store.Store
	choose func(n int) int
	faults int
	late   []func()
}

// The fates of a request that changes something.
const (
	fine       = iota
	lost       // the store never sees it
	unanswered // the store does it, the answer is lost
	delayed    // the store does it some time later
	fates
)

func (l *lossy) change(do func(ctx context.Context) error) func(context.Context) error {
	for len(l.late) > 0 && l.choose(2) == 1 {
		l.late[0]()
		l.late = l.late[1:]
	}
	f := fine
	if l.faults > 0 {
		f = l.choose(fates)
	}
	if f == fine {
		return do
	}
	l.faults--
	return func(ctx context.Context) error {
		switch f {
		case unanswered:
			_ = do(ctx)
		case delayed:
			l.late = append(l.late, func() { _ = do(context.Background()) })
		}
		return store.ErrAmbiguous
	}
}

func (l *lossy) Put(ctx context.Context, key string, body []byte, c store.Condition) (info store.Info, err error) {
	body = bytes.Clone(body)
	err = l.change(func(ctx context.Context) (err error) {
		info, err = l.Store.Put(ctx, key, body, c)
		return err
	})(ctx)
	if err != nil {
		return store.Info{}, err
	}
	return info, nil
}

func (l *lossy) Delete(ctx context.Context, key string) error {
	return l.change(func(ctx context.Context) error { return l.Store.Delete(ctx, key) })(ctx)
}

func (l *lossy) deliver() {
	for _, f := range l.late {
		f()
	}
	l.late = nil
}

// A volume is deleted and another of its name made, over a network that does its worst: nothing that is under way from before
// harms the new one, however late it arrives.
func TestMadeAnewAllInterleavings(t *testing.T) {
	runs := storetest.Explore(func(choose func(int) int) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.volume("v", w.pack(1))
			net := &lossy{Store: w.inner, choose: choose, faults: 2}
			st := store.NewRetry(net)
			if err := gc.Trash(t.Context(), st, "v"); err != nil {
				t.Fatal(err)
			}
			m := &manifest.Manifest{Volume: [16]byte{2}, Name: "v", Size: 1 << 40, Sector: 4096}
			c, err := manifest.Create(t.Context(), st, m)
			if err != nil {
				t.Fatal(err)
			}
			p := w.pack(2)
			if err := c.Replace(t.Context(), func(m *manifest.Manifest) { m.Tail = tail(p) }); err != nil {
				t.Fatal(err)
			}
			net.deliver()
			raw, _, err := w.inner.Get(t.Context(), manifest.Key("v"), store.Range{})
			if err != nil || !bytes.Equal(raw, c.Raw()) {
				t.Fatalf("the store does not hold what its writer believes (%v)", err)
			}
			w.intact()
			if n := len(w.keys("trash/")); n < 1 {
				t.Fatal("the deleted volume is not in the trash")
			}
		})
	})
	t.Logf("%d interleavings", runs)
}

// The PUT that made a volume arrives once more, after the volume was deleted: that does not bring it back.
func TestLateCreateOfADeletedVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		fate := delayed
		net := &lossy{Store: w.inner, choose: func(int) int { return fate }, faults: 1}
		m := &manifest.Manifest{Name: "v", Size: 1 << 40, Sector: 4096}
		done := make(chan error, 1)
		go func() {
			_, err := manifest.Create(t.Context(), net, m)
			done <- err
		}()
		synctest.Wait()
		fate = 0
		if err := <-done; err != nil || len(net.late) != 1 {
			t.Fatalf("%v, %d requests are under way", err, len(net.late))
		}
		w.trash("v")
		net.deliver()
		if _, err := manifest.Read(t.Context(), w.inner, "v"); !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("it is back: %v", err)
		}
	})
}
