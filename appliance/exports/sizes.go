package exports

import (
	"maps"

	"glidefs-appliance/frontends"
)

// Sizes of the requests to each attached disk, by name.
func (m *Manager) Sizes() map[string]frontends.SizeCounts {
	all := m.front.sizes()
	if s := m.blocks.counts.Load(); s != nil {
		maps.Copy(all, s.Sizes())
	}
	return all
}

func (f *front) sizes() map[string]frontends.SizeCounts {
	if s := f.counts.Load(); s != nil {
		return s.Sizes()
	}
	return map[string]frontends.SizeCounts{}
}
