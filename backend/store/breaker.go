package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"
)

// Bounds of the breaker.
const (
	// breakAfter failures in a row open it.
	breakAfter = 5
	// breakFor is how long after a failure of a class its requests don't try.
	breakFor = 2 * time.Second
)

// States of Health.
const (
	HealthOK       = "ok"       // the last request was answered
	HealthDegraded = "degraded" // requests fail, not yet breakAfter in a row, or nothing moves in those under way
	HealthDown     = "down"     // the breaker is open, or lets single requests try
)

// Health tells how the store was doing when it was last asked. Nobody asks only to find out: an idle breaker sends
// nothing, so Health may be old.
type Health struct {
	State     string
	Since     time.Time // when State began
	LastError string    // the last failure of this outage; "" when ok
}

// Outage is a time in which requests have failed and none was answered; zero when the last one was.
type Outage struct {
	Since, Last time.Time // the first failure and the last
	LastError   string
}

// note moves the outage along after a request.
func (o *Outage) note(err error) {
	if !unanswered(err) {
		*o = Outage{}
		return
	}
	o.Last, o.LastError = time.Now(), err.Error()
	if o.Since.IsZero() {
		o.Since = o.Last
	}
}

// Puts is the outage of one operation's own PUTs: what becomes of those of others tells nothing about it.
type Puts struct {
	mu     sync.Mutex
	outage Outage
}

type putsKey struct{}

// NotePuts returns a context whose PUTs are noted in the Puts.
func NotePuts(ctx context.Context) (context.Context, *Puts) {
	p := new(Puts)
	return context.WithValue(ctx, putsKey{}, p), p
}

// Outage is that of the PUTs until now.
func (p *Puts) Outage() Outage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.outage
}

func (p *Puts) note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.outage.note(err)
}

// staleOutage is how long after its last failure an outage says nothing any more: nobody has tried since. Longer than any
// pause between the attempts of an upload, with the time that one which hangs takes to fail.
const staleOutage = 5 * time.Minute

// Breaker fails requests at once with ErrUnavailable while the store is down, so that hundreds of waiting requests don't
// each wait for a time-out and hold a slot meanwhile. It opens after breakAfter consecutive ErrUnavailable or ErrAmbiguous;
// breakFor after the last failure of its class the next real request of each class tries, and any answer closes it. Each class
// for itself: a pack over a slow line takes a minute, and a store that is full fails each upload, but no guest may wait for that.
type Breaker struct {
	inner    Store
	pulse    pulse
	onHealth func(Health)

	// Lock order: events, then mu. events keeps calls of onHealth in the order of the changes.
	events sync.Mutex
	mu     struct {
		sync.Mutex
		health   Health
		failures int // in a row; open from breakAfter on
		failed   [NumClasses]time.Time
		trying   [NumClasses]bool
		puts     [NumClasses]Outage
	}
}

// NewBreaker decorates inner. onHealth, if not nil, is called at each change of Health.State; it must not block.
func NewBreaker(inner Store, onHealth func(Health)) *Breaker {
	b := &Breaker{inner: inner, onHealth: onHealth}
	b.mu.health = Health{State: HealthOK, Since: time.Now()}
	return b
}

// unanswered: the store did not do its part. A caller's deadline that passed is counted too: a store that takes that long
// is down for its users.
func unanswered(err error) bool {
	return Retryable(err) || errors.Is(err, context.DeadlineExceeded)
}

// leftByCaller: that tells nothing about the store. A deadline that passed while the body waited for bandwidth is no
// different.
func leftByCaller(ctx context.Context, err error) bool {
	return errors.Is(err, context.Canceled) || err != nil && pacerOf(ctx).leftWaiting()
}

// Health is the state as of the last request that ended, or of those under way when they have been silent for long.
func (b *Breaker) Health() Health { return b.pulse.over(b.answered()) }

func (b *Breaker) answered() Health {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.health
}

// Writes is the outage of those PUTs that an upload needs, packs or manifests, whichever failed last: a store that is full,
// or throttles writes, answers each read, and Health is ok then.
func (b *Breaker) Writes() Outage {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.mu.puts[Upload]
	if m := b.mu.puts[Manifest]; m.Last.After(o.Last) {
		o = m
	}
	if time.Since(o.Last) >= staleOutage {
		return Outage{}
	}
	return o
}

func (b *Breaker) URL() string { return b.inner.URL() }

func (b *Breaker) Get(ctx context.Context, key string, r Range) (body []byte, in Info, err error) {
	err = b.run(ctx, "get", key, func(ctx context.Context) error {
		body, in, err = b.inner.Get(ctx, key, r)
		return err
	})
	return body, in, err
}

func (b *Breaker) Put(ctx context.Context, key string, body []byte, c Condition) (in Info, err error) {
	err = b.run(ctx, "put", key, func(ctx context.Context) error {
		in, err = b.inner.Put(ctx, key, body, c)
		b.notePut(ctx, err)
		return err
	})
	return in, err
}

func (b *Breaker) Delete(ctx context.Context, key string) error {
	return b.run(ctx, "delete", key, func(ctx context.Context) error { return b.inner.Delete(ctx, key) })
}

func (b *Breaker) Now(ctx context.Context) (now time.Time, err error) {
	err = b.run(ctx, "now", "", func(ctx context.Context) error {
		now, err = b.inner.Now(ctx)
		return err
	})
	return now, err
}

func (b *Breaker) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		stopped := false
		err := b.run(ctx, "list", prefix, func(ctx context.Context) error {
			for in, err := range b.inner.List(ctx, prefix, after) {
				if err != nil {
					return err
				}
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

// run asks the store through f if the breaker lets it.
func (b *Breaker) run(ctx context.Context, op, key string, f func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("store: %s %s: %w", op, key, err)
	}
	c := ClassOf(ctx)
	try, ok := b.enter(c)
	if !ok {
		return b.refuse(op, key)
	}
	if try {
		defer b.tried(c)
	}
	err := b.ask(ctx, f)
	b.note(ctx, err)
	return err
}

func (b *Breaker) ask(ctx context.Context, f func(context.Context) error) (err error) {
	answered := false
	b.pulse.begin()
	defer func() { b.pulse.end(answered) }()
	err = f(context.WithValue(ctx, pulseKey{}, &b.pulse))
	answered = !unanswered(err) && !leftByCaller(ctx, err)
	return err
}

// enter tells whether a request of class c may be sent, and whether it is a try.
func (b *Breaker) enter(c Class) (try, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.failures < breakAfter {
		return false, true
	}
	if b.mu.trying[c] || time.Since(b.mu.failed[c]) < breakFor {
		return false, false
	}
	b.mu.trying[c] = true
	return true, true
}

func (b *Breaker) tried(c Class) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.trying[c] = false
}

func (b *Breaker) refuse(op, key string) error {
	h := b.answered()
	return refusal{fmt.Errorf("store: %s %s: %w since %s, not asked again yet: %s", op, key, ErrUnavailable,
		h.Since.UTC().Format(time.RFC3339), h.LastError)}
}

// refusal marks an error of a request that was not sent, for those who count.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// note moves the health along after an answer.
func (b *Breaker) note(ctx context.Context, err error) {
	if leftByCaller(ctx, err) {
		return
	}
	b.events.Lock()
	defer b.events.Unlock()
	if changed, h := b.advance(ClassOf(ctx), err); changed && b.onHealth != nil {
		b.onHealth(h)
	}
}

// notePut: each class for itself, since a store that is nearly full still takes small objects.
func (b *Breaker) notePut(ctx context.Context, err error) {
	if leftByCaller(ctx, err) {
		return
	}
	if p, ok := ctx.Value(putsKey{}).(*Puts); ok {
		p.note(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.puts[ClassOf(ctx)].note(err)
}

func (b *Breaker) advance(c Class, err error) (changed bool, h Health) {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := Health{State: HealthOK}
	if unanswered(err) {
		b.mu.failures++
		b.mu.failed[c] = time.Now()
		next = Health{State: HealthDegraded, LastError: err.Error()}
		if b.mu.failures >= breakAfter {
			next.State = HealthDown
		}
	} else {
		b.mu.failures = 0
	}
	changed = next.State != b.mu.health.State
	next.Since = b.mu.health.Since
	if changed {
		next.Since = time.Now()
	}
	b.mu.health = next
	return changed, next
}
