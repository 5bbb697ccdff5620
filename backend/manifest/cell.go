package manifest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"

	"glidefs-appliance/backend/store"
)

// Cell is one volume's manifest as one writer sees it. It never guesses: an update whose outcome is unknown is frozen, and the same
// bytes are sent again until the store has said what became of them.
//
//	        Replace: build, freeze
//	settled -----------------------> frozen --PUT ok--------------------------------> settled, Current is the new one
//	                                  |  ^ '--no answer: wait, PUT the same bytes--.
//	                                  |  '----------------------------------------'
//	                                  '--412: GET and compare the whole body:
//	                                       one that we sent: it had won ------------> settled, Current is that one
//	                                       what was there before --> wait, PUT again
//	                                       anything else ---------------------------> fenced, for good
//
// A PUT that the network delivers late can do no harm: until it is settled nothing else is sent, so it is one of ours and a 412 that
// it causes is recognised; afterwards its If-Match names a body that never comes back, because each carries a new Nonce. What a late
// PUT of a process that died can do is make the first Replace of the next process fail with a FencedError that names its own
// state directory: Read again, the manifest is still ours.
//
// Methods are safe for concurrent use; Replace calls take turns.
type Cell struct {
	st   store.Store
	name string
	turn chan struct{}        // holds one value while a Replace runs; guards all but now
	now  atomic.Pointer[body] // what the store holds as far as we know; nil or a tombstone before Create is settled

	looked bool    // now is known
	sent   []*body // sent on top of now, outcomes unknown; the last is the one that is sent again, see late.go for more than one
	fenced error
}

// body is a manifest and its bytes. Immutable, but for sends.
type body struct {
	m      *Manifest
	raw    []byte
	etag   string
	window Window
	undo   bool // takes the place of an update that came too late, see late.go
	sends  int
}

// DamagedError is ErrDamaged of the manifest itself: without it nothing of the volume can be found.
type DamagedError struct {
	Key string
	err error
}

func (e *DamagedError) Error() string { return e.err.Error() }
func (e *DamagedError) Unwrap() error { return e.err }

// Read opens the manifest of an existing volume. Errors: store.ErrNotFound, together with ErrDeleting for one that is being deleted,
// *DamagedError, ErrVersion and those of the store.
func Read(ctx context.Context, st store.Store, name string) (*Cell, error) {
	c, err := Find(ctx, st, name)
	if err == nil && c.Vacant() {
		return nil, fmt.Errorf("read manifest of %s: %w", name, store.ErrNotFound)
	}
	return c, err
}

// Find is Read that also returns a Cell where there is no volume: it is Vacant, and Create is all that it can do.
func Find(ctx context.Context, st store.Store, name string) (*Cell, error) {
	c, err := read(ctx, st, name)
	if err == nil && !c.Vacant() && c.Current().Deleted {
		return nil, fmt.Errorf("read manifest of %s: %w: %w", name, store.ErrNotFound, ErrDeleting)
	}
	return c, err
}

// ReadToDelete is Read that also opens what is being deleted, so that an interrupted deletion can be finished.
func ReadToDelete(ctx context.Context, st store.Store, name string) (*Cell, error) {
	c, err := read(ctx, st, name)
	if err == nil && c.Vacant() {
		return nil, fmt.Errorf("read manifest of %s: %w", name, store.ErrNotFound)
	}
	return c, err
}

func read(ctx context.Context, st store.Store, name string) (*Cell, error) {
	if err := ValidName(name); err != nil {
		return nil, err
	}
	c := newCell(st, name)
	err := c.look(store.With(ctx, store.Manifest))
	if err != nil {
		return nil, fmt.Errorf("read manifest of %s: %w", name, err)
	}
	return c, nil
}

// look finds out what is there.
func (c *Cell) look(ctx context.Context) error {
	raw, info, err := get(ctx, c.st, c.name)
	if errors.Is(err, store.ErrNotFound) {
		c.looked = true
		return nil
	}
	if err != nil {
		return err
	}
	m, err := Decode(raw)
	if err == nil && m.Name != c.name {
		err = fmt.Errorf("%w: it is the manifest of %s", ErrDamaged, m.Name)
	}
	if errors.Is(err, ErrDamaged) {
		err = &DamagedError{Key: Key(c.name), err: err}
	}
	if err != nil {
		return err
	}
	c.looked = true
	c.now.Store(&body{m: m, raw: raw, etag: info.ETag})
	return nil
}

// Vacant tells that there is no volume, but perhaps a tombstone; Current and Raw mean nothing then.
func (c *Cell) Vacant() bool {
	now := c.now.Load()
	return now == nil || now.m.Tombstone()
}

// get reads a manifest and insists on its ETag: without one the next PUT would have no condition.
func get(ctx context.Context, st store.Store, name string) ([]byte, store.Info, error) {
	raw, info, err := st.Get(ctx, Key(name), store.Range{})
	if err == nil && info.ETag == "" {
		err = fmt.Errorf("%w: its answer to a GET has no ETag", store.ErrUnsuitable)
	}
	return raw, info, err
}

// Create makes a new volume of m, which it copies, where there is none or a tombstone: a look and one PUT, repeated until it is
// settled or ctx ends (ErrUnsettled: the volume may come to be; Read tells, and its Volume id tells whose it is). ErrExists if there
// is one of that name, together with ErrDeleting if that is being deleted.
func Create(ctx context.Context, st store.Store, m *Manifest) (*Cell, error) {
	c := newCell(st, m.Name)
	if err := c.Create(ctx, m); err != nil {
		return nil, err
	}
	return c, nil
}

// Create is Create for a Cell that is Vacant; it is of no use after an error.
func (c *Cell) Create(ctx context.Context, m *Manifest) error {
	if err := c.freeze(m.Clone(), Window{}); err != nil {
		return fmt.Errorf("create manifest of %q: %w", m.Name, err)
	}
	err := c.settle(store.With(ctx, store.Manifest))
	var who *FencedError
	if errors.As(err, &who) {
		err = ErrExists
		if who.Gone {
			err = fmt.Errorf("%w: %w", ErrExists, ErrDeleting)
		}
	}
	if err != nil {
		return fmt.Errorf("create manifest of %s: %w", m.Name, err)
	}
	return nil
}

func newCell(st store.Store, name string) *Cell {
	return &Cell{st: st, name: name, turn: make(chan struct{}, 1)}
}

// Current is the manifest as this writer last knew it; Clone it to change it.
func (c *Cell) Current() *Manifest { return c.now.Load().m }

// Raw is the bytes of Current; nobody may modify them.
func (c *Cell) Raw() []byte { return c.now.Load().raw }

// Settled tells that the store holds Current, and that nothing which was sent can change that any more. It does not block.
func (c *Cell) Settled() bool {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
		return c.fenced == nil && len(c.sent) == 0
	default:
		return false
	}
}

// Replace puts the manifest that build makes of a copy of Current in its place, and returns nil when it is there. It retries until
// ctx ends. build runs at most once and holds no lock; nothing is sent if what it makes is not valid.
//
// An earlier update that was left unsettled is settled first. It may turn out to have won, so build must look at what it is given
// (the Barrier) rather than repeat blindly.
//
// Errors: ErrFenced (a *FencedError; every later call returns it again); otherwise ErrUnsettled and the cause: the update may take
// place yet. For updates that name objects written just now see Publish.
func (c *Cell) Replace(ctx context.Context, build func(next *Manifest)) error {
	return c.Publish(ctx, Window{}, build)
}

// Publish is Replace for an update that names new objects: it also fails with ErrLate when more than a quarter of Grace has passed
// since w, because by then they may have been collected. After ErrLate the manifest does not name them, nor ever will.
func (c *Cell) Publish(ctx context.Context, w Window, build func(next *Manifest)) error {
	return c.inTurn(ctx, "replace", func(ctx context.Context) error { return c.publish(ctx, w, build) })
}

// Settle finds out what became of an update that was left unsettled: then the store holds Current. It retries until ctx ends.
// Errors: as Replace.
func (c *Cell) Settle(ctx context.Context) error { return c.inTurn(ctx, "settle", c.settleAny) }

func (c *Cell) inTurn(ctx context.Context, what string, do func(context.Context) error) error {
	ctx = store.With(ctx, store.Manifest)
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return fmt.Errorf("%s manifest of %s: %w", what, c.name, ctx.Err())
	}
	if err := do(ctx); err != nil {
		return fmt.Errorf("%s manifest of %s: %w", what, c.name, err)
	}
	return nil
}

// settleAny settles, whichever way: that an update came too late is told to its own caller only.
func (c *Cell) settleAny(ctx context.Context) error {
	if err := c.settle(ctx); err != nil && !errors.Is(err, ErrLate) {
		return err
	}
	return nil
}

func (c *Cell) publish(ctx context.Context, w Window, build func(next *Manifest)) error {
	if err := c.settleAny(ctx); err != nil {
		return err
	}
	next := c.Current().Clone()
	build(next)
	if err := c.freeze(next, w); err != nil {
		return err
	}
	return c.settle(ctx)
}

// freeze makes next the update to send. It decodes what it encoded: a manifest that nobody can read would lose the volume.
func (c *Cell) freeze(next *Manifest, w Window) error {
	if next.Name != c.name {
		return fmt.Errorf("the name changed to %q", next.Name)
	}
	rand.Read(next.Nonce[:])
	raw := next.Encode()
	m, err := Decode(raw)
	if err != nil {
		return err
	}
	c.sent = append(c.sent, &body{m: m, raw: raw, window: w})
	return nil
}
