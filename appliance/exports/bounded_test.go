package exports

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/statedir"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
	"glidefs-appliance/backend/volume"
)

const removeTimeout = time.Minute

// managerOver has a closed disk, "d", in a store whose guests' reads are answered all the time and whose uploads fail, as
// those of another disk do that are larger than what is left of a quota.
func managerOver(t *testing.T, f *storetest.Fault) *Manager {
	t.Helper()
	s := store.NewStack(f, store.StackOptions{})
	m := New(Options{
		Host: &volume.Host{Store: s}, State: &statedir.State{ID: [16]byte{1}}, Log: slog.New(slog.DiscardHandler),
		SyncTimeout: removeTimeout, Life: t.Context(),
		Health: func() Health {
			h, w := s.Health(), s.Writes()
			r := Health{Text: h.State, Refusing: w.Since, Refused: w.Last}
			if h.State != store.HealthOK {
				r.Away = h.Since
			}
			return r
		},
	})
	m.garbage.last.Store(time.Now().Add(time.Hour).Unix()) // no collector runs
	if err := create(t, f.Inner(), "d"); err != nil {
		t.Fatal(err)
	}
	f.Always(storetest.On(store.OpPut, "packs/"), storetest.Unavailable())
	for _, ask := range []func(ctx context.Context) error{
		func(ctx context.Context) error {
			_, _, err := s.Get(store.With(ctx, store.Guest), "packs/x", store.Range{})
			return err
		},
		func(ctx context.Context) error {
			_, err := s.Put(store.With(ctx, store.Upload), "packs/y", nil, store.Condition{})
			return err
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		go func() {
			for ctx.Err() == nil {
				_ = ask(ctx) // the upload's retries end with ctx
				select {
				case <-time.After(100 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		}()
	}
	return m
}

// How long rm goes on depends on its own requests, not on the uploads of other disks, and one that gave up is finished by
// the next.
func TestRemoveWhileOthersCannotUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := storetest.NewFault(mem.New())
		m := managerOver(t, f)
		slow := f.Always(storetest.On(store.OpGet, "volumes/"), storetest.Unavailable())
		time.AfterFunc(5*removeTimeout, slow.Remove)
		if err := m.Remove(t.Context(), "d"); err != nil {
			t.Error(err)
		}
		if _, err := manifest.Read(t.Context(), f.Inner(), "d"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("it is there still: %v", err)
		}
	})
}

func TestRemoveThatCannotWriteEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := storetest.NewFault(mem.New())
		m := managerOver(t, f)
		full := f.Always(storetest.On(store.OpPut, "trash/"), storetest.Unavailable())
		begin := time.Now()
		if err := m.Remove(t.Context(), "d"); code(err) != api.CodeOffline {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
		full.Remove()
		if err := m.Remove(t.Context(), "d"); err != nil {
			t.Errorf("again: %v", err)
		}
		if _, err := manifest.Read(t.Context(), f.Inner(), "d"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("it is there still: %v", err)
		}
	})
}
