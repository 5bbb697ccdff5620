package store

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"
)

// Retry sends a request again while the store is unavailable, until ctx ends; how long that may be is the caller's
// decision. Between attempts it waits a random time up to a bound that doubles (full jitter), shorter for those that a
// guest waits for.
//
// A conditional PUT is sent once only: after a lost answer the same PUT would meet its own effect and report a loss. Its
// error goes to the caller, who settles it by reading back. Everything else is idempotent: GET, LIST, DELETE (names are
// never used again) and the PUT of an object named by its content.
type Retry struct {
	inner Store
}

// NewRetry decorates inner.
func NewRetry(inner Store) *Retry { return &Retry{inner} }

func (s *Retry) URL() string { return s.inner.URL() }

func (s *Retry) Get(ctx context.Context, key string, r Range) (body []byte, in Info, err error) {
	err = persist(ctx, func() error {
		body, in, err = s.inner.Get(ctx, key, r)
		return err
	})
	return body, in, err
}

func (s *Retry) Put(ctx context.Context, key string, body []byte, c Condition) (in Info, err error) {
	if c != (Condition{}) {
		return s.inner.Put(ctx, key, body, c)
	}
	err = persist(ctx, func() error {
		in, err = s.inner.Put(ctx, key, body, c)
		return err
	})
	return in, err
}

func (s *Retry) Delete(ctx context.Context, key string) error {
	return persist(ctx, func() error { return s.inner.Delete(ctx, key) })
}

func (s *Retry) Now(ctx context.Context) (now time.Time, err error) {
	err = persist(ctx, func() error {
		now, err = s.inner.Now(ctx)
		return err
	})
	return now, err
}

// List goes on after the last key it yielded.
func (s *Retry) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		stopped := false
		b := backoff{class: ClassOf(ctx)}
		err := b.persist(ctx, func() error {
			for in, err := range s.inner.List(ctx, prefix, after) {
				if err != nil {
					return err
				}
				after = in.Key
				b.attempts = 0
				if stopped = !yield(in, nil); stopped {
					return nil
				}
			}
			return nil
		})
		if err != nil && !stopped {
			yield(Info{}, err)
		}
	}
}

func persist(ctx context.Context, f func() error) error {
	b := backoff{class: ClassOf(ctx)}
	return b.persist(ctx, f)
}

type backoff struct {
	class    Class
	attempts int // since the last sign of life
}

func (b *backoff) persist(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil || !Retryable(err) || ctx.Err() != nil {
			return err
		}
		b.attempts++
		if ended := sleep(ctx, b.delay()); ended != nil {
			return fmt.Errorf("%w (%w after %d attempts)", err, ended, b.attempts)
		}
	}
}

// Bounds of the random wait before the n-th retry: base doubled n-1 times, at most limit.
const (
	guestBase, guestLimit = 50 * time.Millisecond, 2 * time.Second
	otherBase, otherLimit = 200 * time.Millisecond, 30 * time.Second
)

func (b *backoff) delay() time.Duration { return rand.N(b.bound()) + 1 }

func (b *backoff) bound() time.Duration {
	base, limit := otherBase, otherLimit
	if b.class == Guest {
		base, limit = guestBase, guestLimit
	}
	return min(base<<min(b.attempts-1, 16), limit)
}
