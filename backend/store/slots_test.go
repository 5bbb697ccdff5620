package store

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

// queue starts an acquire in the bubble and returns a channel that is closed once it has its slot.
func queue(ctx context.Context, s *slots, c Class) <-chan error {
	done := make(chan error, 1)
	go func() { done <- s.acquire(ctx, c) }()
	synctest.Wait()
	return done
}

func admitted(done <-chan error) bool {
	synctest.Wait()
	select {
	case err := <-done:
		return err == nil
	default:
		return false
	}
}

func TestUploadsLeaveRoomForGuests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(32)
		for i := range 24 {
			if !admitted(queue(t.Context(), s, Upload)) {
				t.Fatalf("upload %d waits", i)
			}
		}
		waiting := queue(t.Context(), s, Upload)
		if admitted(waiting) {
			t.Fatal("uploads take the slots of guests")
		}
		for i := range 8 {
			if !admitted(queue(t.Context(), s, Guest)) {
				t.Fatalf("guest %d waits behind uploads", i)
			}
		}
		s.release(Guest)
		if admitted(waiting) {
			t.Fatal("a guest's slot went to an upload beyond its share")
		}
		s.release(Upload)
		if !admitted(waiting) {
			t.Fatal("an upload's slot did not go to the next upload")
		}
	})
}

func TestGuestsLeaveRoomForUploads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(32)
		for range 28 {
			if !admitted(queue(t.Context(), s, Guest)) {
				t.Fatal("a guest waits with slots free")
			}
		}
		if admitted(queue(t.Context(), s, Guest)) {
			t.Fatal("guests take every slot")
		}
		if !admitted(queue(t.Context(), s, Manifest)) || !admitted(queue(t.Context(), s, Upload)) {
			t.Fatal("an upload waits behind a flood of guests")
		}
	})
}

// TestManifestsLeaveRoomForGuests: with thousands of disks their manifests alone could take every slot.
func TestManifestsLeaveRoomForGuests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(32)
		for i := range 28 {
			if !admitted(queue(t.Context(), s, Manifest)) {
				t.Fatalf("manifest %d waits", i)
			}
		}
		if admitted(queue(t.Context(), s, Manifest)) {
			t.Fatal("manifests take every slot")
		}
		for i := range 4 {
			if !admitted(queue(t.Context(), s, Guest)) {
				t.Fatalf("guest %d waits behind manifests", i)
			}
		}
	})
}

func TestHighestClassGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(1)
		if !admitted(queue(t.Context(), s, GC)) {
			t.Fatal("the only request waits")
		}
		arrival := []Class{Admin, GC, Upload, Upload, Guest, Compaction, Manifest, Prefetch}
		done := map[Class][]<-chan error{}
		for _, c := range arrival {
			done[c] = append(done[c], queue(t.Context(), s, c))
		}
		last := GC
		for _, want := range []Class{Guest, Manifest, Upload, Upload, Prefetch, Compaction, GC, Admin} {
			s.release(last)
			if !admitted(done[want][0]) {
				t.Fatalf("%s is not next", want)
			}
			done[want], last = done[want][1:], want
		}
	})
}

func TestAbandonedWaiterKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(1)
		queue(t.Context(), s, Upload)
		ctx, cancel := context.WithCancel(t.Context())
		gone, next := queue(ctx, s, Upload), queue(t.Context(), s, Upload)
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		s.release(Upload)
		if !admitted(next) {
			t.Fatal("the slot went to a waiter that had left")
		}
	})
}

// TestSlotsModel runs random arrivals, departures and give-ups: the inequalities hold at each step, nobody waits who fits,
// and all slots come back.
func TestSlotsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSlots(rapid.IntRange(1, 40).Draw(t, "n"))
		type queued struct {
			c Class
			w *waiter
			e func()
		}
		var waits []queued
		held := [NumClasses]int{}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			c := Class(rapid.IntRange(0, int(NumClasses)-1).Draw(t, "class"))
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				w, e := s.enter(c)
				if w == nil {
					held[c]++
				} else {
					waits = append(waits, queued{c, w, func() { s.abandon(c, w, e) }})
				}
			case 1:
				if held[c] > 0 {
					held[c]--
					s.release(c)
				}
			case 2:
				if len(waits) > 0 {
					waits[0].e()
					waits = waits[1:]
				}
			}
			rest := waits[:0]
			for _, q := range waits {
				select {
				case <-q.w.granted:
					held[q.c]++
				default:
					rest = append(rest, q)
				}
			}
			waits = rest
			checkSlots(t, s, held)
		}
	})
}

func checkSlots(t *rapid.T, s *slots, held [NumClasses]int) {
	inFlight, waiting := s.load()
	if inFlight != held {
		t.Fatalf("in flight %v, held %v", inFlight, held)
	}
	sum := 0
	for c := int(NumClasses) - 1; c >= 0; c-- {
		if sum += held[c]; sum > s.ceiling[c] {
			t.Fatalf("%d of class %d and lower, ceiling %d", sum, c, s.ceiling[c])
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range NumClasses {
		if waiting[c] > 0 && s.fitsLocked(c) {
			t.Fatalf("%s waits and would fit", c)
		}
	}
}

// TestSlotsRace is for the race detector.
func TestSlotsRace(t *testing.T) {
	s := newSlots(4)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for j := range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				if (i+j)%5 == 0 {
					cancel()
				}
				if c := Class((i + j) % int(NumClasses)); s.acquire(ctx, c) == nil {
					s.release(c)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if inFlight, waiting := s.load(); inFlight != [NumClasses]int{} || waiting != [NumClasses]int{} {
		t.Fatalf("left over: %v in flight, %v waiting", inFlight, waiting)
	}
}
