package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// GatewayOptions: the zero value has 32 slots and no bandwidth limits.
type GatewayOptions struct {
	// Concurrency is the number of requests in flight at most; 0 means 32.
	Concurrency int
	// UploadLimit and DownloadLimit are in bytes of bodies per second; 0 means none.
	UploadLimit, DownloadLimit int64
}

// Gateway is what every request of a process goes through: it bounds how many run at once, serves the classes in the
// order of their priority, keeps bandwidth limits, and counts requests and bytes by cause. A request keeps its slot while
// its body waits for bandwidth, so half of the slots at most are for the requests under each limit. An idle gateway costs
// nothing: no goroutine, no timer, no request.
type Gateway struct {
	inner    Store
	slots    *slots
	up, down *bandwidth
	meters   [NumClasses][NumOps]meter
}

// NewGateway puts a gateway in front of inner.
func NewGateway(inner Store, o GatewayOptions) *Gateway {
	if o.Concurrency <= 0 {
		o.Concurrency = 32
	}
	return &Gateway{
		inner: inner,
		slots: newSlots(o.Concurrency),
		up:    newBandwidth(o.UploadLimit, o.Concurrency/2),
		down:  newBandwidth(o.DownloadLimit, o.Concurrency/2),
	}
}

// Stats is a snapshot of the counters.
func (g *Gateway) Stats() *Stats {
	s := new(Stats)
	s.InFlight, s.Waiting = g.slots.load()
	for _, b := range []*bandwidth{g.up, g.down} {
		if b == nil {
			continue
		}
		_, waiting := b.lanes.load()
		for c := range waiting {
			s.Waiting[c] += waiting[c]
		}
	}
	for c := range g.meters {
		for op := range g.meters[c] {
			s.Ops[c][op] = g.meters[c][op].snapshot()
		}
	}
	return s
}

func (g *Gateway) URL() string { return g.inner.URL() }

func (g *Gateway) Get(ctx context.Context, key string, r Range) (body []byte, in Info, err error) {
	err = g.run(ctx, OpGet, g.down, func(ctx context.Context) (up, down int, err error) {
		body, in, err = g.inner.Get(ctx, key, r)
		return 0, len(body), err
	})
	return body, in, at("get", key, err)
}

func (g *Gateway) Put(ctx context.Context, key string, body []byte, c Condition) (in Info, err error) {
	err = g.run(ctx, OpPut, g.up, func(ctx context.Context) (up, down int, err error) {
		in, err = g.inner.Put(ctx, key, body, c)
		return len(body), 0, err
	})
	return in, at("put", key, err)
}

func (g *Gateway) Delete(ctx context.Context, key string) error {
	err := g.run(ctx, OpDelete, nil, func(ctx context.Context) (up, down int, err error) {
		return 0, 0, g.inner.Delete(ctx, key)
	})
	return at("delete", key, err)
}

func (g *Gateway) Now(ctx context.Context) (now time.Time, err error) {
	err = g.run(ctx, OpNow, nil, func(ctx context.Context) (up, down int, err error) {
		now, err = g.inner.Now(ctx)
		return 0, 0, err
	})
	return now, at("now", "", err)
}

// gatewayPage is how many keys List reads from the store before it yields one: a page of S3.
const gatewayPage = 1000

// List holds no slot while the consumer runs: the loop body may well send requests of its own, and with few slots for its
// class it would wait for itself.
func (g *Gateway) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for {
			page, err := g.page(ctx, prefix, after)
			for _, in := range page {
				if !yield(in, nil) {
					return
				}
			}
			if err != nil {
				yield(Info{}, at("list", prefix, err))
				return
			}
			if len(page) < gatewayPage {
				return
			}
			after = page[len(page)-1].Key
		}
	}
}

func (g *Gateway) page(ctx context.Context, prefix, after string) (page []Info, err error) {
	err = g.run(ctx, OpList, nil, func(ctx context.Context) (up, down int, err error) {
		for in, err := range g.inner.List(ctx, prefix, after) {
			if err != nil {
				return 0, 0, err
			}
			if page = append(page, in); len(page) == gatewayPage {
				break
			}
		}
		return 0, 0, nil
	})
	return page, err
}

// errNotAdmitted marks that ctx ended before the request was sent, or while its body waited for bandwidth.
var errNotAdmitted = errors.New("waited for its turn")

// run waits for its place in b and a slot, then calls f with a context that keeps the body to b, and counts it.
func (g *Gateway) run(ctx context.Context, op Op, b *bandwidth, f func(context.Context) (up, down int, err error)) error {
	begin, c := time.Now(), ClassOf(ctx)
	ctx, p, err := b.begin(ctx, c)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotAdmitted, err)
	}
	defer p.end()
	if err := g.slots.acquire(ctx, c); err != nil {
		return fmt.Errorf("%w: %w", errNotAdmitted, err)
	}
	defer g.slots.release(c)
	sent := time.Now()
	up, down, err := f(ctx)
	if _, refused := errors.AsType[refusal](err); !refused {
		waited := p.waitedFor()
		g.meters[c][op].record(sent.Sub(begin)+waited, time.Since(sent)-waited, up, down, failed(err))
	}
	if err != nil && p.leftWaiting() {
		err = fmt.Errorf("%w: %w", errNotAdmitted, err)
	}
	return err
}

// failed: an answer that callers expect is none.
func failed(err error) bool {
	return err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrPrecondition)
}

// at names operation and key for errors of the gateway itself; the store has named them in its own.
func at(op, key string, err error) error {
	if errors.Is(err, errNotAdmitted) {
		return fmt.Errorf("store: %s %s: %w", op, key, err)
	}
	return err
}
