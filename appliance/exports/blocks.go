package exports

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/ublk"
	"glidefs-appliance/udev"
)

// blocks is the ublk server: there from the first disk that wants it to the end of the daemon.
type blocks struct {
	owner   string
	log     *slog.Logger
	onPanic func(name string, value any, stack []byte)

	mu      sync.Mutex
	support ublk.Support // as last probed
	server  *ublk.Server

	counts atomic.Pointer[ublk.Server] // for Ublk
}

// probe tells what the kernel offers. What was missing may have come since, so only good news are kept.
func (b *blocks) probe() ublk.Support {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.support.UserCopy {
		b.support = ublk.Verified()
	}
	return b.support
}

// open returns the server, started if need be.
func (b *blocks) open() (*ublk.Server, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server != nil {
		return b.server, nil
	}
	s, err := ublk.Open(ublk.Options{Owner: b.owner, ZeroCopy: b.support.ZeroCopy, Log: b.log, OnPanic: b.onPanic})
	if err != nil {
		return nil, err
	}
	if wrote, err := udev.Host().Ensure(); wrote || err != nil {
		b.log.Info("udev rule for block devices put in place", "err", err)
	}
	b.server = s
	b.counts.Store(s)
	return s, nil
}

// add makes a disk a block device, or takes back the one that the last daemon left; it returns which frontend that is.
func (b *blocks) add(ctx context.Context, name string, d frontends.Disk, o ublk.AddOptions) (path, is string, err error) {
	s, err := b.open()
	if err != nil {
		return "", "", err
	}
	dev, err := s.Add(ctx, name, d, o)
	if err != nil {
		return "", "", err
	}
	if dev.ZeroCopy() {
		return dev.Path(), ublkZero, nil
	}
	return dev.Path(), ublkCopy, nil
}

// Ublk counts what the block devices of this daemon did. It does not block.
func (m *Manager) Ublk() ublk.Stats {
	if s := m.blocks.counts.Load(); s != nil {
		return s.Stats()
	}
	return ublk.Stats{}
}

// settle waits until the kernel has noticed that the last daemon is dead. Before that no disk of it may be opened.
func (b *blocks) settle(ctx context.Context) error {
	if !b.probe().UserCopy {
		return nil
	}
	s, err := b.open()
	if err != nil {
		return err
	}
	return s.Settle(ctx)
}

// sweep removes what the last daemon left and nobody wants.
func (b *blocks) sweep(wanted []string) {
	b.mu.Lock()
	s := b.server
	b.mu.Unlock()
	if s == nil {
		return
	}
	if n, err := s.Sweep(wanted); n > 0 || err != nil {
		b.log.Info("removed block devices that nobody wants", "count", n, "err", err)
	}
}

// shut removes the devices that nobody has mounted and leaves the others, whose users wait, to the next daemon.
func (b *blocks) shut(ctx context.Context, names []string) (left map[string]bool) {
	b.mu.Lock()
	s := b.server
	b.server = nil
	b.mu.Unlock()
	left = map[string]bool{}
	if s == nil {
		return left
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			if err := s.Remove(ctx, name, false); err != nil {
				b.log.Info("block device is left to the next daemon", "disk", name, "why", err)
				mu.Lock()
				left[name] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		b.log.Warn("block devices are not closed in order", "err", err)
	}
	return left
}
