package exports

import (
	"context"

	"golang.org/x/sync/errgroup"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/statedir"
)

// Restore opens again what the last daemon had attached. A disk that cannot be opened stays in the list, and status
// says why. The returned function does the work; until it is done the disks' names are taken.
func (m *Manager) Restore(ctx context.Context) (run func(), err error) {
	list, err := m.o.State.Exports()
	if err != nil {
		return nil, err
	}
	var work []func()
	var wanted []string
	for _, l := range list {
		if !l.Attached {
			m.mu.owed[l.Name] = l
			continue
		}
		if m.booted(l) {
			l.Device = ""
		}
		m.mu.disks[l.Name] = &export{wasBefore: l}
		wanted = append(wanted, l.Name)
		release, err := m.names.take(ctx, l.Name, "being opened again")
		if err != nil {
			return nil, err
		}
		work = append(work, func() {
			defer release()
			m.reopen(ctx, l)
		})
	}
	return func() {
		if err := m.blocks.settle(ctx); err != nil {
			m.o.Log.Warn("block devices of the last daemon are not settled", "err", err)
		}
		var g errgroup.Group
		g.SetLimit(parallel)
		for _, w := range work {
			g.Go(func() error {
				w()
				return nil
			})
		}
		_ = g.Wait() // a disk that cannot be opened is no error of the others
		m.blocks.sweep(wanted)
	}, nil
}

// booted tells whether the host was started since the disk was attached.
func (m *Manager) booted(l statedir.Export) bool { return l.Boot != m.o.Host.BootID }

func (m *Manager) reopen(ctx context.Context, l statedir.Export) {
	m.o.Log.Info("opening again what the last daemon had", "disk", l.Name)
	c := chooseAgain(l, m.booted(l), m.blocks.probe())
	c.bare = l.Bare
	_, err := m.attach(ctx, l.Name, api.Attach{ReadOnly: l.ReadOnly}, c)
	if err == nil {
		return
	}
	m.o.Log.Error("disk of the last daemon cannot be opened again", "disk", l.Name, "err", err)
	if m.hasLog(l.Name) && !l.ReadOnly {
		l.Left = m.left(ctx, l.Name, l.Left)
	}
	m.mu.Lock()
	m.mu.disks[l.Name] = &export{wasBefore: l, reattach: err}
	m.mu.Unlock()
}
