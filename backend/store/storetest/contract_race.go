package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"glidefs-appliance/backend/store"
)

func creators(t *testing.T, s store.Store) {
	for round := range 20 {
		key := fmt.Sprintf("volumes/v%d/manifest", round)
		var won atomic.Int32
		var winner atomic.Value
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				body := fmt.Sprintf("creator %d", i)
				_, err := s.Put(t.Context(), key, []byte(body), store.Condition{IfAbsent: true})
				switch {
				case err == nil:
					won.Add(1)
					winner.Store(body)
				case !errors.Is(err, store.ErrPrecondition) && !errors.Is(err, store.ErrUnavailable):
					t.Errorf("creator %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if got, _ := get(t, s, key, store.Range{}); won.Load() != 1 || string(got) != winner.Load() {
			t.Fatalf("round %d: %d winners, the last %v, but the object is %q", round, won.Load(), winner.Load(), got)
		}
	}
}

// counter: 8 goroutines add 1 by compare-and-swap, 25 times each.
func counter(t *testing.T, s store.Store) {
	const key, workers, each = "volumes/v/manifest", 8, 25
	put(t, s, key, []byte("0"), store.Condition{})
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for done := 0; done < each && !t.Failed(); {
				if addOne(t, s, key) {
					done++
				}
			}
		})
	}
	wg.Wait()
	if got, _ := get(t, s, key, store.Range{}); string(got) != strconv.Itoa(workers*each) {
		t.Fatalf("the counter is %s after %d increments", got, workers*each)
	}
}

func addOne(t *testing.T, s store.Store, key string) bool {
	body, in, err := s.Get(t.Context(), key, store.Range{})
	if errors.Is(err, store.ErrUnavailable) {
		return false
	}
	n, aerr := strconv.Atoi(string(body))
	if err != nil || aerr != nil {
		t.Errorf("counter is %q: %v", body, errors.Join(err, aerr))
		return false
	}
	_, err = s.Put(t.Context(), key, []byte(strconv.Itoa(n+1)), store.Condition{IfMatch: in.ETag})
	if err != nil && !errors.Is(err, store.ErrPrecondition) && !errors.Is(err, store.ErrUnavailable) {
		t.Error(err)
	}
	return err == nil
}

// wholeObjects: while one object is overwritten with bodies of one repeated byte and a length of their own, no reader sees
// two bytes or another length.
func wholeObjects(t *testing.T, s store.Store) {
	const key = "volumes/v/manifest"
	write := func(i int) {
		put(t, s, key, bytes.Repeat([]byte{byte(i)}, 50_000+i), store.Condition{})
	}
	write(0)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					readWhole(t, s, key)
				}
			}
		})
	}
	for i := range 100 {
		write(i)
	}
	close(stop)
	wg.Wait()
}

func readWhole(t *testing.T, s store.Store, key string) {
	body, _, err := s.Get(t.Context(), key, store.Range{})
	if errors.Is(err, store.ErrUnavailable) {
		return // a body cut short was noticed
	}
	if err != nil || len(body) < 50_000 || bytes.Count(body, body[:1]) != len(body) || len(body) != 50_000+int(body[0]) {
		t.Errorf("a reader saw %d bytes of mixed content, %v", len(body), err)
	}
}
