package exports

import (
	"context"
	"sync"
	"time"

	"glidefs-appliance/appliance/api"
)

// repeatEvery is how often a standstill is reported.
const repeatEvery = time.Second

// reports pass the progress of an operation on, and the last of it again while nothing moves: that is when whoever waits
// wants to know why, and the store's health is part of each.
type reports struct {
	to     func(api.Progress)
	health func() Health
	end    func() // after it, to is not called any more

	mu   sync.Mutex // held while to is called
	last *api.Progress
}

func (m *Manager) reports(ctx context.Context, to func(api.Progress)) *reports {
	return newReports(ctx, to, m.o.Health)
}

func newReports(ctx context.Context, to func(api.Progress), health func() Health) *reports {
	r := &reports{to: to, health: health}
	ctx, cancel := context.WithCancel(ctx)
	var repeats sync.WaitGroup
	repeats.Go(func() { r.repeat(ctx) })
	r.end = func() {
		cancel()
		repeats.Wait()
	}
	return r
}

// say reports what is new.
func (r *reports) say(left, total int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = &api.Progress{Left: left, Total: total}
	r.sendLocked()
}

func (r *reports) sendLocked() {
	if r.last != nil {
		r.last.Store = r.health().Text
		r.to(*r.last)
	}
}

func (r *reports) repeat(ctx context.Context) {
	tick := time.NewTicker(repeatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.mu.Lock()
			r.sendLocked()
			r.mu.Unlock()
		}
	}
}
