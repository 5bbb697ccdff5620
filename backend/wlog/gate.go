package wlog

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// gate lets one pass at a time run over a growing sequence and gathers the callers that the next pass will serve: group
// commit for writes, and for syncs. A caller whose seq the running pass covers waits for it, any other for the next.
// Guarded by mu, but for what is atomic.
type gate struct {
	mu      *sync.Mutex
	running bool
	through uint64        // the running pass covers everything up to here
	begun   uint64        // passes
	ended   atomic.Uint64 // passes; read without mu too
	conds   [2]sync.Cond  // [turn]: waiting for the running pass; the other: for the next one
	turn    int
	waiting [2]int        // callers on each condition
	served  int           // callers of the last pass and those who waited for the next when it ended, leaders included
	rising  atomic.Int32  // callers that were woken and do not run yet
	risen   chan struct{} // has a token since the last of them ran
}

func (g *gate) init(mu *sync.Mutex) {
	g.mu, g.conds[0].L, g.conds[1].L = mu, leaving{mu}, leaving{mu}
	g.risen = make(chan struct{}, 1)
}

// leaving is a mutex that is not taken again after a wait. Those whom a pass served would take it one after the other,
// each woken by the one before, while the next leader waits for them.
type leaving struct{ mu *sync.Mutex }

func (l leaving) Lock()   {}
func (l leaving) Unlock() { l.mu.Unlock() }

// gather makes the caller the leader of a pass that begins when those whom the last pass served, who are likely to come
// back at once, have come: else each pass would serve the half that was late for the one before. Nobody waits for a
// timer: it gives way to whom the last pass woke, then to what else is runnable, and goes on when that brings nobody. It
// drops and retakes mu.
func (g *gate) gather() {
	g.running = true
	for late := 0; late < gatherTries && 1+g.waiting[g.turn^1] < g.served; late++ {
		n := g.waiting[g.turn^1]
		g.mu.Unlock()
		if g.rising.Load() > 0 {
			<-g.risen // not Gosched: the other processors would take this goroutine before those that wait behind it
		} else {
			runtime.Gosched()
		}
		g.mu.Lock()
		if g.waiting[g.turn^1] > n {
			late = 0
		}
	}
}

// gatherTries is how often a leader gives way in vain.
const gatherTries = 4

// begin makes the caller the leader of a pass up to through.
func (g *gate) begin(through uint64) {
	g.running, g.through = true, through
	g.begun++
	g.turn ^= 1
}

// end wakes those whom the pass served, and one who will lead the next.
func (g *gate) end() {
	g.running, g.served = false, 1+g.waiting[0]+g.waiting[1]
	g.ended.Store(g.begun)
	g.wake(g.turn)
	if next := g.turn ^ 1; g.waiting[next] > 0 {
		g.waiting[next]--
		g.rising.Add(1)
		g.conds[next].Signal()
	}
}

func (g *gate) wake(turn int) {
	g.rising.Add(int32(g.waiting[turn]))
	g.waiting[turn] = 0
	g.conds[turn].Broadcast()
}

// wait sleeps until the running pass or the next one has ended, or may be led, or all are woken. It drops mu.
func (g *gate) wait(next bool) {
	on := g.turn
	if next {
		on ^= 1
	}
	g.waiting[on]++
	g.conds[on].Wait()
	if g.rising.Add(-1) == 0 {
		select {
		case g.risen <- struct{}{}:
		default:
		}
	}
}

func (g *gate) wakeAll() {
	g.wake(0)
	g.wake(1)
}
