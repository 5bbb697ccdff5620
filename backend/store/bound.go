package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// Bounds of one request.
const (
	// boundAfter ends a request of which nothing has moved for that long, boundPerByte added for each byte of its body: a
	// store that does not report progress (see Moved) is given a second for each MiB. Longer than what implementations that
	// have a time-out of their own allow, which know better what became of the request.
	boundAfter   = 2 * time.Minute
	boundPerByte = time.Second >> 20
	// boundGrace is how long a request may take to notice that its context has ended.
	boundGrace = 5 * time.Second
	// boundHung is how many requests that do not notice even that may hang at a time.
	boundHung = 64
)

// Bound gives every request an end: a system call on a dead network mount, or a library that forgot a time-out, would block
// the uploader for ever. A request without a sign of life is cancelled, and when it does not notice it is left behind.
// What became of a PUT or DELETE is not known then (ErrAmbiguous); anything else is ErrUnavailable.
//
// Who gets such an answer to a PUT may use the memory of its body again. So implementations look at the context once more
// between their last use of the body and making the object visible.
type Bound struct {
	inner Store
	hung  atomic.Int32
}

// NewBound decorates inner.
func NewBound(inner Store) *Bound { return &Bound{inner: inner} }

func (b *Bound) URL() string { return b.inner.URL() }

type fetched struct {
	body []byte
	info Info
}

func (b *Bound) Get(ctx context.Context, key string, r Range) ([]byte, Info, error) {
	f, err := bounded(ctx, b, call{"get", key, ErrUnavailable, max(r.Len, -r.Off)}, func(ctx context.Context) (f fetched, err error) {
		f.body, f.info, err = b.inner.Get(ctx, key, r)
		return f, err
	})
	return f.body, f.info, err
}

func (b *Bound) Put(ctx context.Context, key string, body []byte, c Condition) (Info, error) {
	return bounded(ctx, b, call{"put", key, ErrAmbiguous, int64(len(body))}, func(ctx context.Context) (Info, error) {
		return b.inner.Put(ctx, key, body, c)
	})
}

func (b *Bound) Delete(ctx context.Context, key string) error {
	_, err := bounded(ctx, b, call{"delete", key, ErrAmbiguous, 0}, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, b.inner.Delete(ctx, key)
	})
	return err
}

func (b *Bound) Now(ctx context.Context) (time.Time, error) {
	return bounded(ctx, b, call{"now", "", ErrUnavailable, 0}, b.inner.Now)
}

// List reads a page before it yields it, so that what the consumer takes its time for is not held against the store.
func (b *Bound) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for {
			page, err := bounded(ctx, b, call{"list", prefix, ErrUnavailable, 0}, func(ctx context.Context) ([]Info, error) {
				return listPage(b.inner.List(ctx, prefix, after))
			})
			for _, in := range page {
				if !yield(in, nil) {
					return
				}
			}
			if err != nil {
				yield(Info{}, err)
			}
			if err != nil || len(page) < gatewayPage {
				return
			}
			after = page[len(page)-1].Key
		}
	}
}

func listPage(list iter.Seq2[Info, error]) (page []Info, err error) {
	for in, err := range list {
		if err != nil {
			return page, err
		}
		if page = append(page, in); len(page) == gatewayPage {
			break
		}
	}
	return page, nil
}

// call describes a request: what its failure to end means, and the bytes of its body.
type call struct {
	op, key string
	meaning error
	size    int64
}

var errNoSign = errors.New("no sign of life")

type answer[T any] struct {
	value T
	err   error
	panic any // it goes on where the request was made
}

// bounded runs f until it ends or its time is over. f may still run then, and keeps what it uses.
func bounded[T any](ctx context.Context, b *Bound, c call, f func(context.Context) (T, error)) (none T, _ error) {
	if b.hung.Load() >= boundHung {
		return none, fmt.Errorf("store: %s %s: %w: %d requests hang", c.op, c.key, ErrUnavailable, boundHung)
	}
	patience := boundAfter + time.Duration(c.size)*boundPerByte
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(patience, func() { cancel(errNoSign) })
	defer watch.Stop()
	inner = OnMoved(inner, func() { watch.Reset(patience) })

	done := make(chan answer[T], 1)
	go func() {
		var a answer[T]
		defer func() {
			if p := recover(); p != nil {
				a.panic = fmt.Sprintf("%v\n\n%s", p, debug.Stack())
			}
			done <- a
		}()
		a.value, a.err = f(inner)
	}()
	a, left := wait(inner, done)
	if a.panic != nil {
		panic(a.panic)
	}
	if left {
		b.leave(func() { <-done })
	}
	if errors.Is(context.Cause(inner), errNoSign) && a.err != nil {
		a.err = fmt.Errorf("store: %s %s: %w: %w for %s", c.op, c.key, c.meaning, errNoSign, patience)
	} else if left {
		a.err = fmt.Errorf("store: %s %s: %w", c.op, c.key, leftBehind(c, ctx.Err()))
	}
	return a.value, a.err
}

// leftBehind is the error of a request that did not notice its caller's context: a write may still happen.
func leftBehind(c call, err error) error {
	if c.meaning == ErrAmbiguous {
		return fmt.Errorf("%w: %w", ErrAmbiguous, err)
	}
	return err
}

// wait returns the answer, or left when the context has ended and no answer comes.
func wait[T any](ctx context.Context, done <-chan answer[T]) (a answer[T], left bool) {
	select {
	case a = <-done:
		return a, false
	case <-ctx.Done():
	}
	grace := time.NewTimer(boundGrace)
	defer grace.Stop()
	select {
	case a = <-done:
		return a, false
	case <-grace.C:
		return answer[T]{err: errNoSign}, true
	}
}

// leave counts a request as hanging until it ends.
func (b *Bound) leave(ended func()) {
	b.hung.Add(1)
	go func() {
		defer b.hung.Add(-1)
		ended()
	}()
}
