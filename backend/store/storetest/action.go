package storetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"glidefs-appliance/backend/store"
)

// Action is what a rule does to a request: something before it, or something instead of it.
type Action struct {
	before func(f *Fault, ctx context.Context, q Request) error
	get    func(f *Fault, ctx context.Context, q Request) ([]byte, store.Info, error)
	put    func(f *Fault, ctx context.Context, q Request, body []byte) (store.Info, error)
	del    func(f *Fault, ctx context.Context, q Request) error
}

// Fail answers err without doing anything.
func Fail(err error) Action {
	return Action{before: func(_ *Fault, _ context.Context, q Request) error {
		return fmt.Errorf("fault: %s: %w", q, err)
	}}
}

// Unavailable is a 503, or a refused connection: not applied.
func Unavailable() Action { return Fail(store.ErrUnavailable) }

// Panic is a bug on the way to the store.
func Panic() Action {
	return Action{before: func(_ *Fault, _ context.Context, q Request) error { panic("fault: " + q.String()) }}
}

// Slow does the request after d.
func Slow(d time.Duration) Action {
	return Action{before: func(_ *Fault, ctx context.Context, q Request) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ended(ctx, q)
		}
	}}
}

// Hang never answers: the request ends with its context, and is not applied.
func Hang() Action {
	return Action{before: func(_ *Fault, ctx context.Context, q Request) error {
		<-ctx.Done()
		return ended(ctx, q)
	}}
}

// ended is the error of a request that its context ended, maybe while it was under way.
func ended(ctx context.Context, q Request) error {
	if q.Op == store.OpPut || q.Op == store.OpDelete {
		return fmt.Errorf("fault: %s: %w: %w", q, store.ErrAmbiguous, ctx.Err())
	}
	return fmt.Errorf("fault: %s: %w", q, ctx.Err())
}

// ResetAfter breaks the connection after n bytes of body: of a GET that is a short body, of a PUT nothing is applied. A
// body of at most n bytes passes.
func ResetAfter(n int) Action {
	reset := fmt.Errorf("%w: connection reset after %d bytes", store.ErrUnavailable, n)
	return Action{
		get: func(f *Fault, ctx context.Context, q Request) ([]byte, store.Info, error) {
			body, in, err := f.inner.Get(ctx, q.Key, q.Range)
			if err == nil && len(body) > n {
				return nil, store.Info{}, reset
			}
			return body, in, err
		},
		put: func(f *Fault, ctx context.Context, q Request, body []byte) (store.Info, error) {
			if len(body) > n {
				return store.Info{}, reset
			}
			return f.inner.Put(ctx, q.Key, body, q.Cond)
		},
	}
}

// ShortBody is a GET whose body ends early and says so.
func ShortBody() Action { return ResetAfter(0) }

// Truncate is a store that lies: a GET returns the first n bytes as if that were all.
func Truncate(n int) Action {
	return alter(func(body []byte) []byte { return body[:min(n, len(body))] })
}

// FlipBit flips one bit of a GET's body; bit counts from its start, modulo its length.
func FlipBit(bit int) Action {
	return alter(func(body []byte) []byte {
		if len(body) > 0 {
			body[bit/8%len(body)] ^= 1 << (bit % 8)
		}
		return body
	})
}

func alter(change func([]byte) []byte) Action {
	return Action{get: func(f *Fault, ctx context.Context, q Request) ([]byte, store.Info, error) {
		body, in, err := f.inner.Get(ctx, q.Key, q.Range)
		return change(body), in, err
	}}
}

// AnswerLost applies a PUT or DELETE, and the answer is lost: ErrAmbiguous. A PUT whose condition fails is ambiguous too:
// that answer is lost as well.
func AnswerLost() Action {
	return Action{
		put: func(f *Fault, ctx context.Context, q Request, body []byte) (store.Info, error) {
			_, err := f.inner.Put(ctx, q.Key, body, q.Cond)
			return store.Info{}, lost(q, err)
		},
		del: func(f *Fault, ctx context.Context, q Request) error {
			return lost(q, f.inner.Delete(ctx, q.Key))
		},
	}
}

// RequestLost is the same seen from outside, but nothing was applied.
func RequestLost() Action {
	return Action{
		put: func(_ *Fault, _ context.Context, q Request, _ []byte) (store.Info, error) {
			return store.Info{}, lost(q, nil)
		},
		del: func(_ *Fault, _ context.Context, q Request) error { return lost(q, nil) },
	}
}

func lost(q Request, err error) error {
	if errors.Is(err, store.ErrBadKey) {
		return err
	}
	return fmt.Errorf("fault: %s: %w", q, store.ErrAmbiguous)
}
