package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
)

func mustPut(t *testing.T, s store.Store, key string, size int) {
	t.Helper()
	if _, err := s.Put(t.Context(), key, make([]byte, size), store.Condition{}); err != nil {
		t.Fatal(err)
	}
}

func TestGatewayCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := storetest.NewFault(mem.New())
		g := store.NewGateway(f, store.GatewayOptions{})
		f.Always(storetest.On(store.OpPut, ""), storetest.Slow(3*time.Millisecond))
		upload, guest := store.With(t.Context(), store.Upload), store.With(t.Context(), store.Guest)
		if _, err := g.Put(upload, "a/b", make([]byte, 1000), store.Condition{}); err != nil {
			t.Fatal(err)
		}
		g.Get(guest, "a/b", store.Range{Off: 10, Len: 20})
		g.Get(guest, "a/missing", store.Range{})
		f.Once(storetest.On(store.OpGet, ""), storetest.Unavailable())
		g.Get(guest, "a/b", store.Range{})
		g.Now(t.Context())
		st := g.Stats()
		put, get := st.Ops[store.Upload][store.OpPut], st.Ops[store.Guest][store.OpGet]
		switch {
		case put.Requests != 1 || put.Up != 1000 || put.Down != 0 || put.Errors != 0:
			t.Errorf("put: %+v", put)
		case put.Busy != 3*time.Millisecond || put.Latency[2] != 1:
			t.Errorf("put took 3 ms: %+v", put)
		case get.Requests != 3 || get.Down != 20 || get.Errors != 1:
			t.Errorf("get: %+v", get)
		case st.Requests() != 5 || st.Requests() != uint64(f.Count()):
			t.Errorf("%d requests counted, %d arrived", st.Requests(), f.Count())
		}
	})
}

func TestGatewayCountsListPages(t *testing.T) {
	s := mem.New()
	for i := range 2500 {
		mustPut(t, s, fmt.Sprintf("a/%04d", i), 0)
	}
	g := store.NewGateway(s, store.GatewayOptions{})
	keys, err := storetest.Keys(t.Context(), g, "", "")
	if err != nil || len(keys) != 2500 {
		t.Fatal(len(keys), err)
	}
	if n := g.Stats().Ops[store.Admin][store.OpList].Requests; n != 3 {
		t.Fatalf("2500 keys are %d pages, want 3", n)
	}
}

// TestListBodyMaySendRequests: a loop over a list sends requests through the same single slot.
func TestListBodyMaySendRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := store.NewGateway(mem.New(), store.GatewayOptions{Concurrency: 1})
		mustPut(t, g, "a/b", 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for in, err := range g.List(ctx, "", "") {
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := g.Get(ctx, in.Key, store.Range{}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestGatewayPriority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := storetest.NewFault(mem.New())
		g := store.NewGateway(f, store.GatewayOptions{Concurrency: 1})
		mustPut(t, f.Inner(), "x", 1)
		gate := f.Gate(storetest.Any())
		for _, c := range []store.Class{store.Admin, store.GC, store.Upload, store.Guest} {
			go g.Get(store.With(t.Context(), c), "x", store.Range{})
			synctest.Wait()
		}
		for _, want := range []store.Class{store.Admin, store.Guest, store.Upload, store.GC} {
			h := <-gate.C
			if h.Class != want {
				t.Fatalf("%s goes before %s", h.Class, want)
			}
			h.Release()
		}
		gate.Open()
	})
}

func TestBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := store.NewGateway(mem.New(), store.GatewayOptions{UploadLimit: 1 << 20, DownloadLimit: 2 << 20})
		took := func(f func()) time.Duration {
			begin := time.Now()
			f()
			return time.Since(begin)
		}
		about := func(what string, got, want time.Duration) {
			t.Helper()
			if got < want*8/10 || got > want*12/10 {
				t.Errorf("%s took %s, want about %s", what, got, want)
			}
		}
		about("8 MiB up at 1 MiB/s", took(func() { mustPut(t, g, "a", 8<<20) }), 8*time.Second)
		about("a ranged GET of 8 MiB at 2 MiB/s", took(func() {
			g.Get(t.Context(), "a", store.Range{Len: 8 << 20})
		}), 4*time.Second)
		about("two whole GETs, the first of which is charged after", took(func() {
			g.Get(t.Context(), "a", store.Range{})
			g.Get(t.Context(), "a", store.Range{Off: -1})
		}), 4*time.Second)
	})
}

// TestBandwidthPriority: a guest's GET passes compactions that have asked for much more before it.
func TestBandwidthPriority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := store.NewGateway(mem.New(), store.GatewayOptions{DownloadLimit: 1 << 20})
		mustPut(t, g, "a", 32<<20)
		for range 64 {
			go g.Get(store.With(t.Context(), store.Compaction), "a", store.Range{Len: 1 << 20})
		}
		synctest.Wait()
		begin := time.Now()
		if _, _, err := g.Get(store.With(t.Context(), store.Guest), "a", store.Range{Len: 4096}); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begin); d > time.Second {
			t.Errorf("the guest waited %s behind a compaction", d)
		}
		begin = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := g.Get(store.With(ctx, store.Prefetch), "a", store.Range{Len: 8 << 20})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("a wait for bandwidth ended with %v after %s", err, time.Since(begin))
		}
		if !strings.HasPrefix(err.Error(), "store: get a: waited for its turn") {
			t.Errorf("message: %v", err)
		}
	})
}

// TestIdleIsFree: in a bubble that sleeps for a day nothing of a stack wakes up, and no request goes out (P10).
func TestIdleIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := storetest.NewFault(mem.New())
		s := store.NewStack(f, store.StackOptions{Gateway: store.GatewayOptions{UploadLimit: 1000, DownloadLimit: 1000}})
		mustPut(t, s, "a", 1)
		f.Unplug()
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			s.Get(ctx, "a", store.Range{})
			cancel()
		}
		if s.Health().State != store.HealthDown {
			t.Fatal("the store is not down")
		}
		f.ResetCounts()
		time.Sleep(24 * time.Hour)
		if n := f.Count(); n != 0 {
			t.Fatalf("%d requests in a day without work", n)
		}
	})
}
