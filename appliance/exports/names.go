package exports

import (
	"context"
	"sync"
	"time"

	"glidefs-appliance/appliance/api"
)

// nameWait bounds how long an operation waits for another one on the same disk.
const nameWait = 15 * time.Second

// names is one lock per disk name, which knows what it is held for.
type names struct {
	mu   sync.Mutex
	held map[string]*holder
}

type holder struct {
	what string
	done chan struct{}
}

// take waits for the name until ctx ends or too long. The caller calls release.
func (n *names) take(ctx context.Context, name, what string) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, nameWait)
	defer cancel()
	for {
		h := n.try(name, what)
		if h == nil {
			return func() { n.release(name) }, nil
		}
		select {
		case <-h.done:
		case <-ctx.Done():
			return nil, failure(api.CodeBusy, "disk %q is %s; try again when that is done", name, h.what)
		}
	}
}

// try takes the name and returns nil, or returns who has it.
func (n *names) try(name, what string) *holder {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.held[name]; h != nil {
		return h
	}
	if n.held == nil {
		n.held = map[string]*holder{}
	}
	n.held[name] = &holder{what: what, done: make(chan struct{})}
	return nil
}

func (n *names) release(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.held[name].done)
	delete(n.held, name)
}
