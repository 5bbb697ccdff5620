package wlog

import "sync"

// gate lets one pass at a time run over a growing sequence and gathers the callers that the next pass will serve: group
// commit for writes, and for syncs. A caller whose seq the running pass covers waits for it, any other for the next.
// Guarded by the mutex of its conditions.
type gate struct {
	running  bool
	through  uint64       // the running pass covers everything up to here
	conds    [2]sync.Cond // [turn]: waiting for the running pass; the other: for the next one
	turn     int
	sleeping int // callers in wait
}

func (g *gate) init(mu *sync.Mutex) { g.conds[0].L, g.conds[1].L = mu, mu }

// begin makes the caller the leader of a pass up to through.
func (g *gate) begin(through uint64) {
	g.running, g.through = true, through
	g.turn ^= 1
}

// end wakes those whom the pass served, and one who will lead the next.
func (g *gate) end() {
	g.running = false
	g.conds[g.turn].Broadcast()
	g.conds[g.turn^1].Signal()
}

// wait sleeps until there is news for seq.
func (g *gate) wait(seq uint64) {
	cond := &g.conds[g.turn]
	if seq > g.through {
		cond = &g.conds[g.turn^1]
	}
	g.sleeping++
	cond.Wait()
	g.sleeping--
}

func (g *gate) wakeAll() {
	g.conds[0].Broadcast()
	g.conds[1].Broadcast()
}
