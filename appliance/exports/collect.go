package exports

import (
	"context"
	"errors"
	"fmt"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/backend/gc"
	"glidefs-appliance/backend/manifest"
)

// GC deletes objects that nothing has referred to for the grace time.
func (m *Manager) GC(ctx context.Context, g api.GC) (api.Collected, error) {
	if g.Grace < 0 {
		return api.Collected{}, invalid("a grace time of %s: garbage must be kept for some time", g.Grace)
	}
	rep, err := gc.Run(ctx, m.o.Host.Store, gc.Options{Grace: g.Grace, DryRun: g.DryRun, Quiet: m.quiet})
	var open *gc.OpenError
	if errors.As(err, &open) {
		return api.Collected{}, m.stillOpen(g.Grace, open)
	}
	if err != nil {
		return api.Collected{}, fmt.Errorf("gc of %s: %w", m.o.Host.Store.URL(), err)
	}
	return api.Collected{Live: rep.Live, Deleted: rep.Deleted + rep.Expired, Bytes: rep.Bytes, Waiting: rep.Kept}, nil
}

// quiet asks the disks that are attached here.
func (m *Manager) quiet() map[[16]byte]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	quiet := map[[16]byte]bool{}
	for _, e := range m.mu.disks {
		if e.vol == nil {
			continue
		}
		if log, ok := e.vol.Quiet(); ok {
			quiet[log] = true
		}
	}
	return quiet
}

// stillOpen says why a short grace time would be dangerous, and what helps.
func (m *Manager) stillOpen(grace time.Duration, e *gc.OpenError) error {
	why, help := fmt.Sprintf("%s has had it since %s and may have uploaded what the store does not refer to yet", e.Owner.Host, instant(e.Since)), "detach it there first"
	switch {
	case e.Making:
		why = fmt.Sprintf("%s has been salvaging it since %s", e.Owner.Host, instant(e.Since))
		help = fmt.Sprintf("wait for that (should it have been interrupted, until %s)", instant(e.Since.Add(manifest.Grace)))
	case e.Owner.State == m.o.State.ID && m.get(e.Name) != nil:
		why, help = "it is being uploaded or merged", fmt.Sprintf("try again after `%s`", m.command("sync "+e.Name))
	case e.Owner.State == m.o.State.ID:
		why, help = "it was not closed here", fmt.Sprintf("`%s` uploads what is left and closes it", m.command("sync "+e.Name))
	}
	return busy("a grace time of %s is too short while disk %q is open: %s. Use the default of %.0fh, or %s", grace, e.Name, why, manifest.Grace.Hours(), help)
}
