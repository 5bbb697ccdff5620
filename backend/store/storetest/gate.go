package storetest

import (
	"context"
	"maps"
	"slices"
	"sync"

	"glidefs-appliance/backend/store"
)

// Gate holds requests until the test lets each of them go on: the scheduler of a race.
type Gate struct {
	// C delivers each request that arrives. It is never closed.
	C    chan *Held
	rule *Rule
	open chan struct{}
	once sync.Once
}

// Held is one request at a gate; its sender waits.
type Held struct {
	Request
	verdict chan error
}

// Release lets the request reach the store.
func (h *Held) Release() { h.verdict <- nil }

// Fail answers the request with err; it does not reach the store.
func (h *Held) Fail(err error) { h.verdict <- err }

// Gate holds every request that matches from now on. A held request whose context ends is not applied.
func (f *Fault) Gate(m Match) *Gate {
	g := &Gate{C: make(chan *Held), open: make(chan struct{})}
	g.rule = f.Always(m, Action{before: g.hold})
	return g
}

// Open lets all held requests and all later ones pass.
func (g *Gate) Open() {
	g.rule.Remove()
	g.once.Do(func() { close(g.open) })
}

func (g *Gate) hold(_ *Fault, ctx context.Context, q Request) error {
	h := &Held{Request: q, verdict: make(chan error, 1)}
	select {
	case g.C <- h:
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ended(ctx, q)
	}
	select {
	case err := <-h.verdict:
		return err
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ended(ctx, q)
	}
}

func sortedKeys(m map[string]store.Info) []string { return slices.Sorted(maps.Keys(m)) }
