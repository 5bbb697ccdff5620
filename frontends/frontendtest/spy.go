package frontendtest

import (
	"context"
	"errors"
	"sync/atomic"

	"glidefs-appliance/frontends"
)

// Spy counts what reaches a disk and can make it fail or wait.
type Spy struct {
	frontends.Disk
	Reads, Writes, FUA, Flushes, Discards, Zeroes, Maps atomic.Int64
	Placed                                              atomic.Int64 // writes that the frontend moved itself
	Written, Discarded                                  atomic.Int64 // bytes

	// hook runs before every operation that reaches the disk; its error is the operation's.
	hook atomic.Pointer[func(ctx context.Context, op string) error]
}

// Watch puts a spy before d.
func Watch(d frontends.Disk) *Spy { return &Spy{Disk: d} }

// Hook sets what runs before every operation ("read", "write", "flush", "discard", "zeroes"); nil removes it.
func (s *Spy) Hook(f func(ctx context.Context, op string) error) {
	if f == nil {
		s.hook.Store(nil)
		return
	}
	s.hook.Store(&f)
}

func (s *Spy) before(ctx context.Context, op string, n *atomic.Int64) error {
	n.Add(1)
	if f := s.hook.Load(); f != nil {
		return (*f)(ctx, op)
	}
	return nil
}

func (s *Spy) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := s.before(ctx, "read", &s.Reads); err != nil {
		return err
	}
	return s.Disk.ReadAt(ctx, p, off)
}

func (s *Spy) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	if fua {
		s.FUA.Add(1)
	}
	if err := s.before(ctx, "write", &s.Writes); err != nil {
		return err
	}
	s.Written.Add(int64(len(p)))
	return s.Disk.WriteAt(ctx, p, off, fua)
}

func (s *Spy) Flush(ctx context.Context) error {
	if err := s.before(ctx, "flush", &s.Flushes); err != nil {
		return err
	}
	return s.Disk.Flush(ctx)
}

func (s *Spy) Discard(ctx context.Context, off, n int64) error {
	if err := s.before(ctx, "discard", &s.Discards); err != nil {
		return err
	}
	s.Discarded.Add(n)
	return s.Disk.Discard(ctx, off, n)
}

func (s *Spy) WriteZeroes(ctx context.Context, off, n int64) error {
	if err := s.before(ctx, "zeroes", &s.Zeroes); err != nil {
		return err
	}
	return s.Disk.WriteZeroes(ctx, off, n)
}

// MapRead is the disk's, while no hook is set (a mapped read would not pass it).
func (s *Spy) MapRead(off, n int64, plan *frontends.Plan) bool {
	m, ok := s.Disk.(frontends.Mapper)
	if !ok || s.hook.Load() != nil || !m.MapRead(off, n, plan) {
		return false
	}
	s.Maps.Add(1)
	return true
}

// TryReserve is the disk's, while no hook is set and if the disk can (otherwise the write comes through WriteAt).
func (s *Spy) TryReserve(off, n int64, place *frontends.Placement) bool {
	p := s.placer()
	return p != nil && p.TryReserve(off, n, place)
}

var errNoPlacer = errors.New("not placed here")

// Reserve is like TryReserve.
func (s *Spy) Reserve(ctx context.Context, off, n int64, place *frontends.Placement) error {
	if p := s.placer(); p != nil {
		return p.Reserve(ctx, off, n, place)
	}
	return errNoPlacer
}

func (s *Spy) placer() frontends.Placer {
	if p, ok := s.Disk.(frontends.Placer); ok && s.hook.Load() == nil {
		return p
	}
	return nil
}

// Commit passes a reservation on that the disk made.
func (s *Spy) Commit(writes []frontends.Write) error {
	s.Placed.Add(int64(len(writes)))
	return s.Disk.(frontends.Placer).Commit(writes)
}

// Abandon too.
func (s *Spy) Abandon(place *frontends.Placement) { s.Disk.(frontends.Placer).Abandon(place) }

var _ frontends.Placer = (*Spy)(nil)
