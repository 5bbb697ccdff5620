package exports

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
	"glidefs-appliance/backend/volume"
)

// storeManager is one that knows a store, which is all that commands about disks nobody has attached need.
func storeManager(t *testing.T, st store.Store) *Manager {
	ended, cancel := context.WithCancel(t.Context())
	cancel() // no collecting in the background
	return &Manager{o: Options{
		Host: &volume.Host{Store: st}, Program: "glide", SyncTimeout: time.Minute, Log: slog.New(slog.DiscardHandler), Life: ended,
		Health: func() Health { return Health{Text: store.HealthOK} },
	}}
}

// create makes a disk that nobody has attached.
func create(t *testing.T, st store.Store, name string) error {
	tail := []manifest.TailEntry{{Ref: pack.Ref{Size: 200, IndexLen: 100, End: 1, Sectors: 1}}}
	_, err := manifest.Create(t.Context(), st, &manifest.Manifest{Name: name, Size: 1 << 30, Sector: 4096, Closed: true, Tail: tail})
	return err
}

// TestInterruptedRemove: a disk that was removed halfway is shown as that, whoever wants its name is told what to do, and doing it
// helps.
func TestInterruptedRemove(t *testing.T) {
	st := storetest.NewFault(mem.New())
	m := storeManager(t, st)
	if err := create(t, st, "d"); err != nil {
		t.Fatal(err)
	}
	st.Once(storetest.On(store.OpPut, "trash/"), storetest.Fail(store.ErrDenied))
	if err := m.Remove(t.Context(), "d"); !errors.Is(err, store.ErrDenied) {
		t.Fatal(err)
	}
	if list, err := m.Volumes(t.Context()); err != nil || len(list) != 1 || !strings.Contains(list[0].Error, "being deleted") {
		t.Fatalf("%+v, %v", list, err)
	}
	if err := m.explain("d", create(t, st, "d")); err == nil || !strings.Contains(err.Error(), "glide rm d --yes") {
		t.Errorf("%v", err)
	}
	if err := m.Remove(t.Context(), "d"); err != nil {
		t.Errorf("again: %v", err)
	}
	var no *api.Error
	if err := m.Remove(t.Context(), "d"); !errors.As(err, &no) || no.Code != api.CodeNotFound {
		t.Errorf("once more: %v", err)
	}
	if list, err := m.Volumes(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if err := create(t, st, "d"); err != nil {
		t.Error(err)
	}
}

// TestAttachedDuringRemove: a disk that another host attaches after rm has looked stays that host's.
func TestAttachedDuringRemove(t *testing.T) {
	st := storetest.NewFault(mem.New())
	m := storeManager(t, st)
	if err := create(t, st, "d"); err != nil {
		t.Fatal(err)
	}
	requests := 0
	gate := st.Gate(func(q storetest.Request) bool { // the second one: rm has looked
		if strings.HasPrefix(q.Key, "volumes/") {
			requests++
		}
		return requests == 2
	})
	removed := make(chan error)
	go func() { removed <- m.Remove(t.Context(), "d") }()
	<-gate.C
	cell, err := manifest.Read(t.Context(), st.Inner(), "d")
	if err == nil {
		err = cell.Replace(t.Context(), func(next *manifest.Manifest) { next.Closed = false })
	}
	if err != nil {
		t.Fatal(err)
	}
	gate.Open()
	if err := <-removed; code(err) != api.CodeBusy {
		t.Errorf("removed: %v", err)
	}
	if err := cell.Replace(t.Context(), func(next *manifest.Manifest) { next.Closed = true }); err != nil {
		t.Errorf("the other host: %v", err)
	}
}
