package store

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// silentAfter is how long requests may be under way without anything moving in any of them before Health says so. Much
// shorter than what ends a request, which may yet succeed: whoever waits for an upload wants to know what for.
const silentAfter = 10 * time.Second

// pulse knows since when the store has given no sign of life although it is being asked. A leaf lock.
type pulse struct {
	mu   sync.Mutex
	n    int       // requests under way
	last time.Time // the last sign of life, or when the first of those requests began
}

func (p *pulse) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n == 0 {
		p.last = time.Now()
	}
	p.n++
}

// end of a request; answered: by the store, whatever it said.
func (p *pulse) end(answered bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n--
	if answered {
		p.last = time.Now()
	}
}

func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = time.Now()
}

// silence tells since when there has been no sign of life, when that is too long.
func (p *pulse) silence() (since time.Time, tooLong bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last, p.n > 0 && time.Since(p.last) >= silentAfter
}

// over is what a silence makes of a health that nothing has failed yet.
func (p *pulse) over(h Health) Health {
	since, silent := p.silence()
	if !silent || h.State != HealthOK {
		return h
	}
	return Health{State: HealthDegraded, Since: since, LastError: fmt.Sprintf("requests are under way, and nothing has moved for %s",
		time.Since(since).Round(time.Second))}
}

type pulseKey struct{}

type movedKey struct{}

// OnMoved returns a context with which Moved calls f, too.
func OnMoved(ctx context.Context, f func()) context.Context {
	before, _ := ctx.Value(movedKey{}).(func())
	return context.WithValue(ctx, movedKey{}, func() {
		f()
		if before != nil {
			before()
		}
	})
}

// Moved tells, with the context of a request, that bytes of its body or of its answer have moved, or wait for bandwidth
// here: a store over a slow line is no silent one. Paced and InPieces call it.
func Moved(ctx context.Context) {
	if p, ok := ctx.Value(pulseKey{}).(*pulse); ok {
		p.beat()
	}
	if f, ok := ctx.Value(movedKey{}).(func()); ok {
		f()
	}
}
