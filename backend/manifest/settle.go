package manifest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"glidefs-appliance/backend/store"
)

// FencedError says who replaced the manifest.
type FencedError struct {
	Name  string
	Gone  bool // the volume was deleted; Owner and Since mean nothing
	Owner Owner
	Since time.Time // attached; zero when a newer program wrote a manifest that this one can't read
}

func (e *FencedError) Error() string {
	if e.Gone {
		return fmt.Sprintf("%v: volume %s was deleted", ErrFenced, e.Name)
	}
	return fmt.Sprintf("%v: volume %s belongs to %s since %s", ErrFenced, e.Name, e.Owner.Host, e.Since.UTC().Format(time.RFC3339))
}

func (e *FencedError) Unwrap() error { return ErrFenced }

const (
	firstWait = 100 * time.Millisecond
	lastWait  = 10 * time.Second
)

// settle sends the frozen update until its outcome is known. Nothing to settle is no error.
func (c *Cell) settle(ctx context.Context) error {
	for wait := firstWait; c.fenced == nil && len(c.sent) > 0; {
		err := c.step(ctx)
		if err == nil || c.fenced != nil {
			continue
		}
		if errors.Is(err, ErrLate) {
			return err
		}
		if !store.Retryable(err) || !sleep(ctx, wait) {
			return fmt.Errorf("%w: %w", ErrUnsettled, err)
		}
		wait = min(2*wait, lastWait)
	}
	return c.fenced
}

// step is one attempt to settle; nil is progress.
func (c *Cell) step(ctx context.Context) error {
	if !c.looked {
		return c.lookFirst(ctx)
	}
	if err := c.expire(ctx); err != nil {
		return err
	}
	b := c.sent[len(c.sent)-1]
	b.sends++
	info, err := c.st.Put(ctx, Key(c.name), b.raw, c.condition())
	if errors.Is(err, store.ErrPrecondition) || err == nil && info.ETag == "" {
		return c.lookBack(ctx)
	}
	if err != nil {
		return err
	}
	return c.won(b, info)
}

// lookFirst finds out what a new volume takes the place of, before anything is sent: once an answer has been lost, a tombstone may
// be that of the new volume itself.
func (c *Cell) lookFirst(ctx context.Context) error {
	if err := c.look(ctx); err != nil || c.Vacant() {
		return err
	}
	return c.lost(c.Raw())
}

func (c *Cell) condition() store.Condition {
	if now := c.now.Load(); now != nil {
		return store.Condition{IfMatch: now.etag}
	}
	return store.Condition{IfAbsent: true}
}

// errAgain: the condition was refused although nothing has changed [a store answers 409 while it is busy with the same key].
var errAgain = fmt.Errorf("%w: the condition was refused but nothing had changed", store.ErrUnavailable)

// lookBack reads what is there after a PUT was refused, or the store did not say what its ETag is, and compares whole bodies.
func (c *Cell) lookBack(ctx context.Context) error {
	raw, info, err := get(ctx, c.st, c.name)
	now := c.now.Load()
	if errors.Is(err, store.ErrNotFound) {
		if now == nil {
			return errAgain
		}
		return c.fence(&FencedError{Name: c.name, Gone: true})
	}
	if err != nil {
		return err
	}
	for _, b := range c.sent {
		if bytes.Equal(raw, b.raw) {
			return c.won(b, info)
		}
	}
	if now != nil && bytes.Equal(raw, now.raw) {
		c.now.Store(&body{m: now.m, raw: now.raw, etag: info.ETag})
		return errAgain
	}
	return c.lost(raw)
}

// lost says who won. Bytes that are no manifest tell nothing: then nothing is settled.
func (c *Cell) lost(raw []byte) error {
	other, err := Decode(raw)
	if errors.Is(err, ErrVersion) {
		return c.fence(&FencedError{Name: c.name})
	}
	if err != nil {
		return err
	}
	return c.fence(&FencedError{Name: c.name, Gone: other.Deleted, Owner: other.Owner, Since: other.Since})
}

func (c *Cell) fence(err *FencedError) error {
	c.fenced = err
	return err
}

// won makes b Current. The others that were sent are dead: what they were sent on top of is gone.
func (c *Cell) won(b *body, info store.Info) error {
	before := c.now.Load()
	c.now.Store(&body{m: b.m, raw: b.raw, etag: info.ETag})
	c.sent = nil
	if b.undo {
		return ErrLate
	}
	if before != nil && b.window.olderThan(acceptLimit, info.Modified) {
		return c.undo(before.m)
	}
	return nil
}

// sleep waits for about d; false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d/2 + rand.N(d/2))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
