package store

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// bandwidth limits one direction. A transfer takes its tokens piece by piece, while its body moves, so that no second sees
// more than the limit and a piece [tokens for a whole pack, taken before it was sent, let 30 MB go at the line's own
// speed]. A rate.Limiter alone serves in order of arrival; here the highest class goes first between two pieces.
type bandwidth struct {
	limiter *rate.Limiter
	lanes   *slots // transfers under way: they hold slots of the gateway, of which the other direction needs some
	turn    *slots // one holder
	piece   int    // bytes; also the burst
}

const (
	minPiece = 4 << 10
	maxPiece = 128 << 10

	// signEvery is how often one that waits for tokens says that the store is not to blame: more often than anything that
	// watches a request loses patience.
	signEvery = time.Second
	// fairAfter is how long a body stands still for those of higher classes. Servers end a connection on which nothing moves,
	// and then all of it would have to be moved again.
	fairAfter = 5 * time.Second
)

// newBandwidth returns nil, which limits nothing, unless bytesPerSecond > 0. That many transfers share it at a time.
func newBandwidth(bytesPerSecond int64, transfers int) *bandwidth {
	if bytesPerSecond <= 0 {
		return nil
	}
	piece := int(min(max(bytesPerSecond/8, minPiece), maxPiece))
	return &bandwidth{
		limiter: rate.NewLimiter(rate.Limit(bytesPerSecond), piece),
		lanes:   newSlots(transfers),
		turn:    newSlots(1),
		piece:   piece,
	}
}

// wait returns when n more bytes, a piece at most, may be moved, or ctx ends. It does not use limiter.WaitN, which fails at
// once when the deadline lies before the tokens.
func (b *bandwidth) wait(ctx context.Context, c Class, n int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := b.takeTurn(ctx, c)
	if err != nil {
		return err
	}
	defer b.turn.release(c)
	for d := b.limiter.ReserveN(time.Now(), n).Delay(); d > 0; d -= signEvery {
		Moved(ctx)
		if err := sleep(ctx, min(d, signEvery)); err != nil {
			return err
		}
	}
	return nil
}

// takeTurn waits for the turn of class c and returns the class to release it with: who has waited too long goes with the
// guests.
func (b *bandwidth) takeTurn(ctx context.Context, c Class) (Class, error) {
	w, e := b.turn.enter(c)
	if w == nil {
		return c, nil
	}
	sign := time.NewTicker(signEvery)
	defer sign.Stop()
	for left := fairAfter; ; left -= signEvery {
		select {
		case <-w.granted:
			return c, nil
		case <-ctx.Done():
			b.turn.abandon(c, w, e)
			return c, ctx.Err()
		case <-sign.C:
			Moved(ctx)
		}
		if left <= signEvery && c != Guest {
			b.turn.abandon(c, w, e)
			c = Guest
			if w, e = b.turn.enter(c); w == nil {
				return c, nil
			}
		}
	}
}

// pacer is the bandwidth that a request has its part of.
type pacer struct {
	*bandwidth
	class  Class
	caller context.Context // an implementation may end its own for reasons of its own
	waited atomic.Int64    // nanoseconds
	gaveUp atomic.Bool     // the caller's context ended during a wait
}

type paceKey struct{}

// begin waits for a lane and returns a context whose request keeps to b, and its pacer: nil if there is no limit.
func (b *bandwidth) begin(ctx context.Context, c Class) (context.Context, *pacer, error) {
	if b == nil {
		return ctx, nil, nil
	}
	if err := b.lanes.acquire(ctx, c); err != nil {
		return ctx, nil, err
	}
	p := &pacer{bandwidth: b, class: c, caller: ctx}
	return context.WithValue(ctx, paceKey{}, p), p, nil
}

func (p *pacer) end() {
	if p != nil {
		p.lanes.release(p.class)
	}
}

func pacerOf(ctx context.Context) *pacer {
	p, _ := ctx.Value(paceKey{}).(*pacer)
	return p
}

// most is how many bytes may move between two waits, of n.
func (p *pacer) most(n int) int {
	if p == nil {
		return n
	}
	return min(n, p.piece)
}

// pass waits until n more bytes may move.
func (p *pacer) pass(ctx context.Context, n int) error {
	defer Moved(ctx)
	if p == nil || n == 0 {
		return nil
	}
	began := time.Now()
	err := p.wait(ctx, p.class, n)
	p.waited.Add(int64(time.Since(began)))
	if p.caller.Err() != nil {
		p.gaveUp.Store(true)
	}
	return err
}

func (p *pacer) waitedFor() time.Duration {
	if p == nil {
		return 0
	}
	return time.Duration(p.waited.Load())
}

// leftWaiting tells whether the request was given up by its caller while it waited for bandwidth.
func (p *pacer) leftWaiting() bool { return p != nil && p.gaveUp.Load() }

// Paced returns a reader of a body that keeps to the bandwidth limit of the request that ctx belongs to and reports what
// moves (see Moved). Implementations move bodies through it or InPieces.
func Paced(ctx context.Context, r io.Reader) io.Reader { return &paced{ctx, pacerOf(ctx), r} }

type paced struct {
	ctx   context.Context
	pacer *pacer
	inner io.Reader
}

func (r *paced) Read(p []byte) (int, error) {
	n, err := r.inner.Read(p[:r.pacer.most(len(p))])
	if ended := r.pacer.pass(r.ctx, n); ended != nil {
		return 0, ended
	}
	return n, err
}

// InPieces calls move for one piece of a body after the other; for all of it where there is no limit.
func InPieces(ctx context.Context, body []byte, move func(piece []byte) error) error {
	p := pacerOf(ctx)
	for len(body) > 0 {
		n := p.most(len(body))
		if err := p.pass(ctx, n); err != nil {
			return err
		}
		if err := move(body[:n]); err != nil {
			return err
		}
		body = body[n:]
	}
	return nil
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
