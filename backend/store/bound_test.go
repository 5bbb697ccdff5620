package store_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
)

// stuck is a store whose requests end only when the test says so, whatever their context says.
type stuck struct {
	store.Store
	let chan struct{}
}

func (s stuck) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	<-s.let
	return s.Store.Get(ctx, key, r)
}

func (s stuck) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	<-s.let
	return s.Store.Put(ctx, key, body, c)
}

// TestHangingRequestsEnd: a request that hangs ends by itself, whether it notices its context or not, and says what is
// known of it then.
func TestHangingRequestsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		fault := storetest.NewFault(mem.New())
		fault.Always(storetest.Any(), storetest.Hang())
		for name, inner := range map[string]store.Store{"notices": fault, "does not": stuck{mem.New(), let}} {
			s := store.NewBound(inner)
			begin := time.Now()
			_, _, err := s.Get(t.Context(), "packs/a", store.Range{})
			if !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrAmbiguous) || time.Since(begin) > 3*time.Minute {
				t.Errorf("%s: get: %v after %s", name, err, time.Since(begin))
			}
			begin = time.Now()
			_, err = s.Put(t.Context(), "packs/a", make([]byte, 30<<20), store.Condition{})
			if !errors.Is(err, store.ErrAmbiguous) || errors.Is(err, store.ErrUnavailable) || time.Since(begin) > 3*time.Minute {
				t.Errorf("%s: put: %v after %s", name, err, time.Since(begin))
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			begin = time.Now()
			if _, _, err = s.Get(ctx, "packs/a", store.Range{}); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > time.Minute {
				t.Errorf("%s: get with a deadline: %v after %s", name, err, time.Since(begin))
			}
			cancel()
		}
		close(let)
	})
}

// TestHangingRequestsAreBounded: requests that nothing can end don't pile up.
func TestHangingRequestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		s := store.NewBound(stuck{mem.New(), let})
		var instant int
		for range 100 {
			begin := time.Now()
			if _, _, err := s.Get(t.Context(), "packs/a", store.Range{}); !errors.Is(err, store.ErrUnavailable) {
				t.Fatal(err)
			}
			if time.Since(begin) == 0 {
				instant++
			}
		}
		if instant == 0 || instant > 50 {
			t.Errorf("%d of 100 were refused", instant)
		}
		close(let)
		synctest.Wait()
		if _, _, err := s.Get(t.Context(), "packs/a", store.Range{}); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// slow reports a byte moved each minute for an hour.
type slow struct{ store.Store }

func (s slow) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	for range 60 {
		time.Sleep(time.Minute)
		store.Moved(ctx)
	}
	return s.Store.Put(ctx, key, body, c)
}

// TestSlowIsNotHanging: as long as bytes move a request may take its time.
func TestSlowIsNotHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := store.NewBound(slow{mem.New()})
		if _, err := s.Put(t.Context(), "packs/a", []byte("body"), store.Condition{}); err != nil {
			t.Error(err)
		}
	})
}

// TestPanicsReachTheCaller: he knows whose work it is. Others go on: nothing of what requests take turns for is lost, and a
// store that was away is tried again.
func TestPanicsReachTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := storetest.NewFault(mem.New())
		s := store.NewStack(fault, store.StackOptions{})
		put := func() (panicked any, err error) {
			defer func() { panicked = recover() }()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err = s.Put(ctx, "packs/a", []byte("a"), store.Condition{})
			return nil, err
		}
		fault.Times(100, storetest.Any(), storetest.Panic()) // more than there are slots
		for range 100 {
			if p, _ := put(); p == nil {
				t.Fatal("no panic")
			}
		}
		away := fault.Unplug()
		for range 20 {
			_, _ = put()
		}
		away.Remove()
		fault.Once(storetest.Any(), storetest.Panic())
		time.Sleep(time.Minute)
		if p, _ := put(); p == nil {
			t.Error("no panic when the store is tried again")
		}
		time.Sleep(time.Minute)
		if p, err := put(); p != nil || err != nil {
			t.Errorf("put after them: %v, %v", p, err)
		}
	})
}
