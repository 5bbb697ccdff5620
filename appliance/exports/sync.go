package exports

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/volume"
	"glidefs-appliance/backend/wlog"
)

// Sync returns once everything written up to now is in the store. A disk that is not attached is opened for it and closed
// again: that is how a log left behind by a detach gets uploaded. It gives up when the store is away for too long, with
// api.CodeOffline. progress is called from one goroutine at a time.
func (m *Manager) Sync(ctx context.Context, name string, progress func(api.Progress)) (api.Synced, error) {
	if err := checkName(name); err != nil {
		return api.Synced{}, err
	}
	return boundedUploads(ctx, m, func(ctx context.Context) (api.Synced, error) { return m.sync(ctx, name, progress) })
}

func (m *Manager) sync(ctx context.Context, name string, progress func(api.Progress)) (api.Synced, error) {
	e, release, err := m.attachedOrTaken(ctx, name)
	if err != nil {
		return api.Synced{}, err
	}
	if e != nil {
		return m.syncVolume(ctx, e.vol, progress)
	}
	defer release()
	if !m.hasLog(name) {
		_, err := manifest.Read(ctx, m.o.Host.Store, name)
		return api.Synced{}, m.explain(name, err)
	}
	vol, _, err := m.open(ctx, name, api.Attach{})
	if err != nil {
		return api.Synced{}, m.explain(name, err)
	}
	r, err := m.syncVolume(ctx, vol, progress)
	r.Left = true
	m.closeSoon(ctx, &export{vol: vol})
	return r, err
}

// attachedOrTaken returns the attached disk, or takes the name of one that isn't: whoever held the name may have attached
// it, so that is looked at again with the name taken.
func (m *Manager) attachedOrTaken(ctx context.Context, name string) (e *export, release func(), err error) {
	if e := m.get(name); e != nil {
		return e, nil, nil
	}
	release, err = m.names.take(ctx, name, "uploading what an earlier detach left")
	if err != nil {
		return nil, nil, err
	}
	if e := m.get(name); e != nil {
		release()
		return e, nil, nil
	}
	return nil, release, nil
}

// hasLog tells whether this host has anything of a disk that the store may not have.
func (m *Manager) hasLog(name string) bool {
	return wlog.Exists(m.o.Host.FS, filepath.Join(m.o.Host.Logs, name))
}

func (m *Manager) syncVolume(ctx context.Context, vol *volume.Volume, progress func(api.Progress)) (api.Synced, error) {
	var total int64
	r := m.reports(ctx, progress)
	defer r.end()
	err := vol.Sync(ctx, func(p volume.Progress) {
		total = p.Total
		r.say(p.Left, p.Total)
	})
	if err != nil {
		return api.Synced{}, m.explain(vol.Name(), err)
	}
	return api.Synced{Total: total}, nil
}

// What ends an operation that the store keeps waiting.
var (
	errAway     = errors.New("been away")
	errRefusing = errors.New("taken no writes")
)

// bounded runs an operation that needs the store until the store has been away, or has taken none of its own writes, for
// too long, and names that as the reason then. The store's own retries have no end. The uploads of other disks, which may be
// failing all the while, say nothing about a disk that is removed.
func bounded[T any](ctx context.Context, m *Manager, do func(context.Context) (T, error)) (T, error) {
	ctx, puts := store.NotePuts(ctx)
	return watched(ctx, m, puts.Outage, do)
}

// boundedUploads is bounded for an operation that waits for the uploader, or for its turn at the manifest behind it.
func boundedUploads[T any](ctx context.Context, m *Manager, do func(context.Context) (T, error)) (T, error) {
	uploads := func() store.Outage {
		h := m.o.Health()
		return store.Outage{Since: h.Refusing, Last: h.Refused, LastError: h.Text}
	}
	return watched(ctx, m, uploads, do)
}

func watched[T any](ctx context.Context, m *Manager, writes func() store.Outage, do func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go m.watchStore(ctx, writes, cancel)
	r, err := do(ctx)
	if err == nil {
		return r, nil
	}
	switch why := context.Cause(ctx); {
	case errors.Is(why, errAway):
		err = m.offline(why, m.o.Health().Text)
	case errors.Is(why, errRefusing):
		err = m.offline(why, writes().LastError)
	}
	return r, err
}

func (m *Manager) offline(why error, detail string) error {
	return failure(api.CodeOffline, "the store %s has %s for %s (%s)", m.o.Host.Store.URL(), why, m.o.SyncTimeout, detail)
}

// watchStore ends ctx when the store has been away for the whole of the configured time, or when the writes that count
// have failed all that time.
func (m *Manager) watchStore(ctx context.Context, writes func() store.Outage, cancel context.CancelCauseFunc) {
	start := time.Now()
	lost := start // since when the store has been away, for this operation
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			h := m.o.Health()
			switch {
			case h.Away.IsZero():
				lost = now
			case h.Away.Before(lost): // a silence is noticed late
				lost = later(h.Away, start)
			}
			if now.Sub(lost) >= m.o.SyncTimeout {
				cancel(errAway)
				return
			}
			if failedFor(writes(), start) >= m.o.SyncTimeout {
				cancel(errRefusing)
				return
			}
		}
	}
}

// failedFor is how long after start all writes failed. Up to the last failure only: an upload over a slow line, after one
// that failed, is not finished, and may well succeed.
func failedFor(o store.Outage, start time.Time) time.Duration {
	return o.Last.Sub(later(o.Since, start))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// settled forgets that a detached disk had writes left.
func (m *Manager) settled(name string) {
	m.mu.Lock()
	delete(m.mu.owed, name)
	m.mu.Unlock()
	m.save()
}
