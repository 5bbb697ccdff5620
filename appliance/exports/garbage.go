package exports

import (
	"sync/atomic"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/backend/store"
)

// collectEvery is how often garbage is looked for at most. What a merge replaces may go only after the grace time anyway,
// so a run soon after each would find nothing new.
const collectEvery = 24 * time.Hour

// garbage runs GC in the background after something became garbage, never by time alone: an idle daemon asks the store
// for nothing.
type garbage struct {
	running atomic.Bool
	last    atomic.Int64 // unix seconds of the last run's start
}

// CollectSoon is told that objects have become garbage. It does not block.
func (m *Manager) CollectSoon() {
	if time.Since(time.Unix(m.garbage.last.Load(), 0)) < collectEvery || !m.garbage.running.CompareAndSwap(false, true) {
		return
	}
	m.garbage.last.Store(time.Now().Unix())
	go func() {
		defer m.garbage.running.Store(false)
		got, err := m.GC(store.With(m.o.Life, store.GC), api.GC{})
		if err != nil {
			m.o.Log.Warn("garbage collection stopped", "err", err)
			return
		}
		m.o.Log.Info("garbage collected", "objects", got.Deleted, "bytes", got.Bytes, "waiting", got.Waiting)
	}()
}
