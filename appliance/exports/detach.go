package exports

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/statedir"
	"glidefs-appliance/backend/volume"
	"glidefs-appliance/frontends/fuse"
	"glidefs-appliance/frontends/ublk"
)

const (
	// closeTimeout bounds the one or two store requests of a close.
	closeTimeout = 10 * time.Second
	// busyTimeout is how long the last users of a file may take to let go; the kernel reports closes late.
	busyTimeout = 3 * time.Second
	// parallel is how many disks are opened or closed at the same time when all of them are.
	parallel = 16
)

// Detach takes a disk from its frontend and closes it; it uploads nothing. What is not in the store stays in the log.
func (m *Manager) Detach(ctx context.Context, name string, d api.Detach) (api.Detached, error) {
	if err := checkName(name); err != nil {
		return api.Detached{}, err
	}
	release, err := m.names.take(ctx, name, "being attached or detached")
	if err != nil {
		return api.Detached{}, err
	}
	defer release()
	e := m.get(name)
	if e == nil {
		return m.forget(ctx, name)
	}
	if err := m.withdraw(ctx, name, e, d.Force); err != nil {
		return api.Detached{}, err
	}
	r := m.closeSoon(ctx, e)
	n, _ := m.Attached()
	r.Ending = n == 0
	m.o.Events.detached(name, r)
	return r, nil
}

// forget drops a disk that the last daemon had and that could not be opened again. Its log stays, to be settled, and
// status goes on showing it.
func (m *Manager) forget(ctx context.Context, name string) (api.Detached, error) {
	m.mu.Lock()
	e, known := m.mu.disks[name]
	m.mu.Unlock()
	if !known {
		return api.Detached{}, failure(api.CodeNotFound, "disk %q is not attached", name)
	}
	left, hasLog := m.left(ctx, name, e.wasBefore.Left), m.hasLog(name)
	m.mu.Lock()
	delete(m.mu.disks, name)
	if hasLog {
		m.mu.owed[name] = statedir.Export{Name: name, Left: left, Since: time.Now().UTC()}
	}
	m.mu.Unlock()
	m.save()
	return api.Detached{DirtyBytes: left.Owed, DirtyWrites: left.Writes, Closed: !hasLog}, nil
}

// left counts the writes that are only in the log of a disk that cannot be opened; was is what is known of it.
func (m *Manager) left(ctx context.Context, name string, was statedir.Left) statedir.Left {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	const countOnly = true
	writes, err := volume.Abandon(ctx, m.o.Host, name, countOnly)
	if err != nil {
		m.o.Log.Warn("the writes that are only here cannot be counted", "disk", name, "err", err)
		return was
	}
	was.Writes = writes
	return was
}

// withdraw takes the disk from its users.
func (m *Manager) withdraw(ctx context.Context, name string, e *export, force bool) error {
	if force {
		e.vol.Kill(fmt.Errorf("%w by force", volume.ErrClosed))
	}
	ctx, cancel := context.WithTimeout(ctx, busyTimeout)
	defer cancel()
	err := m.withhold(ctx, name, e, force)
	if errors.Is(err, fuse.ErrBusy) || errors.Is(err, ublk.ErrBusy) {
		return busy("disk %q is in use: %s is open or has a loop device; `%s` if it is mounted, or --force", name, e.path, m.command("umount DIR"))
	}
	return err
}

// closeSoon closes within a limit of its own: a client that goes away must not cut the close short.
func (m *Manager) closeSoon(ctx context.Context, e *export) api.Detached {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return m.close(ctx, e)
}

// close closes the volume of a withdrawn disk and notes what its log still holds. It does not fail: the disk is gone
// from its users, and whatever happens the log is kept. ctx bounds the requests to the store.
func (m *Manager) close(ctx context.Context, e *export) api.Detached {
	name := e.vol.Name()
	st := e.vol.Status()
	r := api.Detached{DirtyBytes: st.DirtyBytes, DirtyWrites: st.DirtyWrites}
	err := e.vol.Close(ctx)
	pending := (*volume.PendingError)(nil)
	switch {
	case err == nil:
		r = api.Detached{Closed: true}
	case errors.As(err, &pending):
		r = api.Detached{DirtyBytes: pending.Bytes, DirtyWrites: pending.Writes}
	}
	if err != nil {
		m.o.Log.Warn("disk is closed here but not in the store", "disk", name, "err", err)
	}
	m.mu.Lock()
	delete(m.mu.disks, name)
	delete(m.mu.states, name)
	switch {
	case st.ReadOnly: // what an earlier attach left stays
	case r.Closed:
		delete(m.mu.owed, name)
	default:
		m.mu.owed[name] = statedir.Export{Name: name, Since: time.Now().UTC(), Left: statedir.Left{
			Size: st.Size, Owed: r.DirtyBytes, Writes: r.DirtyWrites, Oldest: st.OldestDirty, Barrier: st.BarrierTime,
		}}
	}
	m.mu.Unlock()
	m.save()
	return r
}

// Stop ends everything: users of FUSE files get EIO, those of mounted block devices wait for the next daemon, the disks
// are closed, nothing more is uploaded. Disks with writes or users left are opened again by the next daemon. A store that does not answer
// holds all of them up together for closeTimeout.
func (m *Manager) Stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	list := m.list()
	left := m.blocks.shut(ctx, m.onBlocks(list))
	var g errgroup.Group
	g.SetLimit(parallel)
	for _, l := range list {
		if e := m.get(l.Name); e != nil {
			g.Go(func() error {
				m.stop(ctx, l, e, left[l.Name])
				return nil
			})
		}
	}
	_ = g.Wait() // stop has no error to return
}

// Rescue is for a daemon whose state dir is gone. The write logs are in files that have no name any more, so what is in them
// is lost when the daemon ends; they can be read until then. Users get errors from here on, on block devices too: the next
// daemon would not know these for its own. Then what was acknowledged is uploaded, for as long as a sync may take.
func (m *Manager) Rescue(ctx context.Context) {
	var g errgroup.Group
	for _, l := range m.list() {
		if e := m.get(l.Name); e != nil {
			g.Go(func() error {
				m.rescue(ctx, l.Name, e)
				return nil
			})
		}
	}
	_ = g.Wait() // rescue has no error to return
}

func (m *Manager) rescue(ctx context.Context, name string, e *export) {
	gone, cancel := context.WithTimeout(ctx, busyTimeout)
	defer cancel()
	const force = true
	if err := m.withhold(gone, name, e, force); err != nil {
		m.o.Log.Warn("disk is still in use", "disk", name, "err", err)
	}
	_, err := boundedUploads(ctx, m, func(ctx context.Context) (api.Synced, error) {
		return m.syncVolume(ctx, e.vol, func(api.Progress) {})
	})
	r := m.closeSoon(ctx, e)
	if r.DirtyWrites > 0 {
		m.o.Log.Error("writes are not in the store, and lost if the write log was deleted", "disk", name, "writes", r.DirtyWrites, "bytes", r.DirtyBytes, "err", err)
	}
	m.o.Events.detached(name, r)
}

// onBlocks names the disks that are block devices.
func (m *Manager) onBlocks(list []statedir.Export) []string {
	var names []string
	for _, l := range list {
		if e := m.get(l.Name); e != nil && e.frontend != fuseFile {
			names = append(names, l.Name)
		}
	}
	return names
}

// stop closes a disk, whose block device is gone, or left to the next daemon.
func (m *Manager) stop(ctx context.Context, l statedir.Export, e *export, left bool) {
	if e.frontend == fuseFile {
		if err := m.front.remove(ctx, l.Name, true); err != nil {
			m.o.Log.Warn("disk is still in use", "disk", l.Name, "err", err)
		}
	}
	r := m.close(ctx, e)
	m.o.Events.detached(l.Name, r)
	if !left {
		l.Device = ""
	}
	if !r.Closed || left {
		m.keepAttached(l)
	}
}

func (m *Manager) keepAttached(l statedir.Export) {
	m.mu.Lock()
	if !l.ReadOnly {
		l.Left = m.mu.owed[l.Name].Left
		delete(m.mu.owed, l.Name)
	}
	m.mu.disks[l.Name] = &export{wasBefore: l}
	m.mu.Unlock()
	m.save()
}
