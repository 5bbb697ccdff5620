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
func TestServedCountsWhoMayComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var g gate
		g.init(&mu)
		wait := func(next bool) {
			mu.Lock()
			g.wait(next)
		}
		mu.Lock()
		g.gather()
		g.begin(10)
		mu.Unlock()
		go wait(false)
		go wait(false)
		go wait(true)
		synctest.Wait()
		mu.Lock()
		g.end()
		if g.served != 4 {
			t.Errorf("%d callers instead of the leader, two that were served and one that waits", g.served)
		}
		mu.Unlock()
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if g.waiting != [2]int{} {
			t.Errorf("%v still wait", g.waiting)
		}
	})
}
