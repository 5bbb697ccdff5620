package fuse

import (
	"math"
	"sync"
	"sync/atomic"
)

// gate counts the requests inside an export and tells when the last has left after it was closed.
//
//	n = requests inside              while open
//	n = requests inside + closedBias once closed
type gate struct {
	n     atomic.Int64
	once  sync.Once
	empty chan struct{}
}

const closedBias = math.MinInt64 / 2

func (g *gate) init() { g.empty = make(chan struct{}) }

// enter reports false once the gate is closed; otherwise leave must follow.
func (g *gate) enter() bool {
	if g.n.Add(1) > 0 {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() {
	if g.n.Add(-1) == closedBias {
		g.once.Do(func() { close(g.empty) })
	}
}

// close lets nobody in any more. The channel is closed once nobody is inside. Called once.
func (g *gate) close() <-chan struct{} {
	if g.n.Add(closedBias) == closedBias {
		g.once.Do(func() { close(g.empty) })
	}
	return g.empty
}
