package wlog

import (
	"runtime"
	"sync"
)

// gate lets one pass at a time run over a growing sequence and gathers the callers that the next pass will serve: group
// commit for writes, and for syncs. A caller whose seq the running pass covers waits for it, any other for the next.
// Guarded by the mutex of its conditions.
type gate struct {
	running  bool
	through  uint64       // the running pass covers everything up to here
	conds    [2]sync.Cond // [turn]: waiting for the running pass; the other: for the next one
	turn     int
	sleeping int    // callers in wait
	waiting  [2]int // of them, on each condition
	served   int    // callers of the last pass, its leader included
}

func (g *gate) init(mu *sync.Mutex) { g.conds[0].L, g.conds[1].L = mu, mu }

// gather makes the caller the leader of a pass that begins when those whom the last pass served, who are likely to come
// back at once, have come: else each pass would serve the half that was late for the one before. Nobody waits for a
// timer: it gives way to what is runnable, and goes on when that brings nobody. It drops and retakes the mutex.
func (g *gate) gather() {
	g.running = true
	for late := 0; late < gatherTries && 1+g.waiting[g.turn^1] < g.served; late++ {
		n := g.waiting[g.turn^1]
		g.conds[0].L.Unlock()
		runtime.Gosched()
		g.conds[0].L.Lock()
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
	g.turn ^= 1
}

// end wakes those whom the pass served, and one who will lead the next.
func (g *gate) end() {
	g.running, g.served = false, 1+g.waiting[g.turn]
	g.conds[g.turn].Broadcast()
	g.conds[g.turn^1].Signal()
}

// wait sleeps until there is news for seq.
func (g *gate) wait(seq uint64) {
	on := g.turn
	if seq > g.through {
		on ^= 1
	}
	g.sleeping++
	g.waiting[on]++
	g.conds[on].Wait()
	g.waiting[on]--
	g.sleeping--
}

func (g *gate) wakeAll() {
	g.conds[0].Broadcast()
	g.conds[1].Broadcast()
}
