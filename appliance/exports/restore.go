package exports

import (
	"context"

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
	for _, l := range list {
		if !l.Attached {
			m.mu.owed[l.Name] = l
			continue
		}
		m.mu.disks[l.Name] = &export{wasBefore: l}
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
		for _, w := range work {
			w()
		}
	}, nil
}

func (m *Manager) reopen(ctx context.Context, l statedir.Export) {
	a := api.Attach{ReadOnly: l.ReadOnly}
	kind, why, err := choose(l.Frontend)
	if err == nil {
		vol, _, openErr := m.open(ctx, l.Name, a)
		if err = openErr; err == nil {
			_, err = m.publish(vol, kind, why, l.ReadOnly)
		}
	}
	if err == nil {
		m.o.Log.Info("disk opened again after the last daemon died", "disk", l.Name)
		return
	}
	m.o.Log.Error("disk of the last daemon cannot be opened again", "disk", l.Name, "err", err)
	m.mu.Lock()
	m.mu.disks[l.Name] = &export{wasBefore: l, reattach: m.explain(l.Name, err)}
	m.mu.Unlock()
}
