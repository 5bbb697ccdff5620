package exports

import (
	"context"
	"fmt"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/backend/gc"
)

// GC deletes objects that nothing has referred to for the grace time.
func (m *Manager) GC(ctx context.Context, g api.GC) (api.Collected, error) {
	if g.Grace < 0 {
		return api.Collected{}, invalid("a grace time of %s: garbage must be kept for some time", g.Grace)
	}
	rep, err := gc.Run(ctx, m.o.Host.Store, gc.Options{Grace: g.Grace, DryRun: g.DryRun})
	if err != nil {
		return api.Collected{}, fmt.Errorf("gc of %s: %w", m.o.Host.Store.URL(), err)
	}
	return api.Collected{Live: rep.Live, Deleted: rep.Deleted + rep.Expired, Bytes: rep.Bytes, Waiting: rep.Kept}, nil
}
