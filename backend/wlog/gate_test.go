package wlog

import (
	"sync"
	"testing"
	"testing/synctest"
)

// A leader that waits for those of the last pass goes on without the ones that do not come back.
func TestGatherGoesOnWithoutTheLate(t *testing.T) {
	var mu sync.Mutex
	var g gate
	g.init(&mu)
	mu.Lock()
	defer mu.Unlock()
	g.served = 64
	g.gather()
	if !g.running {
		t.Error("the caller does not lead")
	}
}

// Those who wait are counted where they wait, so that the next leader knows whom to expect.
func TestServedCountsWhomThePassServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var g gate
		g.init(&mu)
		wait := func(seq uint64) {
			mu.Lock()
			defer mu.Unlock()
			g.wait(seq)
		}
		mu.Lock()
		g.gather()
		g.begin(10)
		mu.Unlock()
		go wait(7)
		go wait(8)
		go wait(11)
		synctest.Wait()
		mu.Lock()
		g.end()
		if g.served != 3 {
			t.Errorf("the pass served %d callers instead of its leader and two", g.served)
		}
		mu.Unlock()
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if g.waiting != [2]int{} || g.sleeping != 0 {
			t.Errorf("%v, %d still wait", g.waiting, g.sleeping)
		}
	})
}
