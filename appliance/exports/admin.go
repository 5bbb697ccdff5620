package exports

import (
	"context"
	"errors"
	"fmt"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/config"
	"glidefs-appliance/backend/gc"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/volume"
)

// Volumes lists the disks in the store, by name.
func (m *Manager) Volumes(ctx context.Context) ([]api.Volume, error) {
	return bounded(ctx, m, m.volumes)
}

func (m *Manager) volumes(ctx context.Context) ([]api.Volume, error) {
	infos, err := volume.List(store.With(ctx, store.Admin), m.o.Host.Store)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", m.o.Host.Store.URL(), err)
	}
	list := make([]api.Volume, len(infos))
	for i, v := range infos {
		list[i] = api.Volume{Name: v.Name, Size: v.Size, Used: v.Used}
		if v.Err != nil {
			list[i].Error = v.Err.Error()
			continue
		}
		if !v.Last.IsZero() {
			last := v.Last.UTC()
			list[i].Last = &last
		}
		if !v.Closed {
			list[i].Owner, list[i].Mine = v.Owner, v.State == m.o.State.ID
		}
	}
	return list, nil
}

// Remove deletes a disk from the store; refused while anybody owns it.
func (m *Manager) Remove(ctx context.Context, name string) error {
	_, err := bounded(ctx, m, func(ctx context.Context) (struct{}, error) { return struct{}{}, m.remove(ctx, name) })
	return err
}

func (m *Manager) remove(ctx context.Context, name string) error {
	release, err := m.idle(ctx, name, "being removed")
	if err != nil {
		return err
	}
	defer release()
	ctx = store.With(ctx, store.Admin)
	cell, err := manifest.ReadToDelete(ctx, m.o.Host.Store, name) // an rm that was interrupted is finished
	if err != nil {
		return m.explain(name, err)
	}
	if man := cell.Current(); !man.Closed && !man.Deleted {
		return m.inUse(name, man)
	}
	err = gc.TrashCell(ctx, m.o.Host.Store, cell)
	if errors.Is(err, manifest.ErrFenced) {
		return busy("disk %q was attached a moment ago", name)
	}
	if err != nil {
		return m.explain(name, err)
	}
	m.CollectSoon()
	return nil
}

// inUse refuses to remove a disk that somebody, maybe this host, has not closed.
func (m *Manager) inUse(name string, man *manifest.Manifest) error {
	if man.Owner.State == m.o.State.ID {
		return busy("disk %q has writes that are only here, or was not closed; `%s` uploads them, `%s` drops them", name, m.command("sync "+name), m.command("abandon "+name+" --yes"))
	}
	return failure(api.CodeOwned, "disk %q is owned by %s since %s; detach it there first, or take it over here with `%s` and detach it",
		name, man.Owner.Host, instant(man.Since), m.command("attach --takeover "+name))
}

// idle takes the name of a disk that must not be attached.
func (m *Manager) idle(ctx context.Context, name, what string) (release func(), err error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	release, err = m.names.take(ctx, name, what)
	if err != nil {
		return nil, err
	}
	if m.get(name) != nil {
		release()
		return nil, busy("disk %q is attached here; detach it first (`%s` shows where it is mounted)", name, m.command("status"))
	}
	return release, nil
}

// Resize grows a disk; users of an attached one see it at once.
func (m *Manager) Resize(ctx context.Context, name string, size int64) (api.Resized, error) {
	if err := errors.Join(checkName(name), checkSize(size)); err != nil {
		return api.Resized{}, err
	}
	return boundedUploads(ctx, m, func(ctx context.Context) (api.Resized, error) { return m.resize(ctx, name, size) })
}

func (m *Manager) resize(ctx context.Context, name string, size int64) (api.Resized, error) {
	release, err := m.names.take(ctx, name, "being resized")
	if err != nil {
		return api.Resized{}, err
	}
	defer release()
	if e := m.get(name); e != nil {
		if err := m.grow(ctx, e.vol, size); err != nil {
			return api.Resized{}, err
		}
		live, err := m.resized(name, e)
		return api.Resized{Size: size, Live: live}, err
	}
	vol, _, err := m.open(ctx, name, api.Attach{})
	if err != nil {
		return api.Resized{}, m.explain(name, err)
	}
	err = m.grow(ctx, vol, size)
	m.closeSoon(ctx, &export{vol: vol})
	return api.Resized{Size: size}, err
}

func (m *Manager) grow(ctx context.Context, vol *volume.Volume, size int64) error {
	if size < vol.Size() {
		return refused("disk %q has %s and cannot shrink to %s; make a smaller disk and copy", vol.Name(), config.Size(vol.Size()), config.Size(size))
	}
	if size == vol.Size() {
		return nil
	}
	if err := vol.Grow(ctx, size); err != nil {
		return m.explain(vol.Name(), fmt.Errorf("resize %s: %w", vol.Name(), err))
	}
	return nil
}

// Verify reads and checks every object of a disk.
func (m *Manager) Verify(ctx context.Context, name string, progress func(api.Progress)) (api.Verified, error) {
	if err := checkName(name); err != nil {
		return api.Verified{}, err
	}
	return bounded(ctx, m, func(ctx context.Context) (api.Verified, error) { return m.verify(ctx, name, progress) })
}

func (m *Manager) verify(ctx context.Context, name string, progress func(api.Progress)) (api.Verified, error) {
	r := m.reports(ctx, progress)
	defer r.end()
	rep, err := volume.Verify(store.With(ctx, store.Admin), m.o.Host, name, func(done, total int64) { r.say(total-done, total) })
	if err != nil {
		return api.Verified{}, m.explain(name, err)
	}
	v := api.Verified{Objects: rep.Objects, Bytes: rep.Bytes, Damaged: []api.Range{}}
	for _, d := range rep.Damage {
		v.Damaged = append(v.Damaged, api.Range{Off: d.Off, Len: d.Len, Object: d.Object, Reason: d.Err.Error()})
	}
	return v, nil
}

// Salvage makes the disk as of the last instant that this host had in the store plus its log.
func (m *Manager) Salvage(ctx context.Context, name, as string, progress func(api.Progress)) error {
	if err := checkName(as); err != nil {
		return err
	}
	_, err := bounded(ctx, m, func(ctx context.Context) (struct{}, error) { return struct{}{}, m.salvage(ctx, name, as, progress) })
	return err
}

func (m *Manager) salvage(ctx context.Context, name, as string, progress func(api.Progress)) error {
	release, err := m.idle(ctx, name, "being salvaged")
	if err != nil {
		return err
	}
	defer release()
	if !m.hasLog(name) {
		return failure(api.CodeNotFound, "there is nothing to salvage: this host has no write log of disk %q", name)
	}
	r := m.reports(ctx, progress)
	defer r.end()
	if err := volume.Salvage(ctx, m.o.Host, name, as, func(done, total int64) { r.say(total-done, total) }); err != nil {
		if errors.Is(err, volume.ErrExists) {
			return m.explain(as, err)
		}
		return m.explain(name, err)
	}
	return nil
}

// Abandon drops this host's log of a disk and tells how many writes were only there; dry only counts them.
func (m *Manager) Abandon(ctx context.Context, name string, dry bool) (api.Abandoned, error) {
	return bounded(ctx, m, func(ctx context.Context) (api.Abandoned, error) { return m.abandon(ctx, name, dry) })
}

func (m *Manager) abandon(ctx context.Context, name string, dry bool) (api.Abandoned, error) {
	release, err := m.idle(ctx, name, "being abandoned")
	if err != nil {
		return api.Abandoned{}, err
	}
	defer release()
	n, err := volume.Abandon(ctx, m.o.Host, name, dry)
	if errors.Is(err, volume.ErrNotFound) {
		return api.Abandoned{}, failure(api.CodeNotFound, "there is nothing to abandon: this host has no write log of disk %q, and does not own it", name)
	}
	if err != nil {
		return api.Abandoned{}, m.explain(name, err)
	}
	if !dry {
		m.settled(name)
	}
	return api.Abandoned{Writes: n}, nil
}
