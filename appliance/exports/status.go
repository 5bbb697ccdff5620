package exports

import (
	"slices"
	"strings"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/statedir"
)

// Status lists the disks, by name. It takes no lock that I/O holds, and asks the store nothing.
func (m *Manager) Status() []api.Disk {
	host := m.o.Usage()
	host.Store, host.StoreHealth = m.o.Host.Store.URL(), m.o.Health().Text
	host.AsOf = time.Now().UTC()
	list := []api.Disk{}
	m.mu.Lock()
	for name, e := range m.mu.disks {
		list = append(list, m.describeLocked(name, e))
	}
	for name, o := range m.mu.owed {
		if m.mu.disks[name] == nil {
			list = append(list, m.detached(o))
		}
	}
	m.mu.Unlock()
	for i := range list {
		list[i].Host = host
	}
	slices.SortFunc(list, func(a, b api.Disk) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// detached describes a disk with writes that are only in its log here.
func (m *Manager) detached(o statedir.Export) api.Disk {
	d := closed(o)
	d.State, d.Reason = "detached", "not attached; `"+m.command("sync "+o.Name)+"` uploads the writes that are only here"
	return d
}

// closed describes a disk as it was closed.
func closed(was statedir.Export) api.Disk {
	d := api.Disk{Name: was.Name, ReadOnly: was.ReadOnly, Frontend: was.Frontend, Device: was.Device, MountedOn: []string{}}
	d.SizeBytes, d.DirtyBytes, d.DirtyWrites = was.Size, was.Owed, was.Writes
	d.OldestDirty, d.BarrierTime = age(was.Oldest), barrier(was.Barrier)
	return d
}

// describeLocked is called with m.mu held.
func (m *Manager) describeLocked(name string, e *export) api.Disk {
	if e.vol == nil {
		d := closed(e.wasBefore)
		d.State, d.Reason = "opening", "was attached when the last daemon ended; every start opens it again"
		if e.reattach != nil {
			d.State, d.Reason = "failed", e.reattach.Error()
		}
		return d
	}
	st := e.vol.Status()
	d := api.Disk{
		Name: name, SizeBytes: st.Size, SectorSize: st.Sector, Attached: true, ReadOnly: e.readOnly,
		Frontend: e.frontend, Why: e.why, Device: e.path, MountedOn: []string{}, Epoch: st.Epoch,
		State: st.State, Reason: st.Reason,
		DirtyBytes: st.DirtyBytes, DirtyWrites: st.DirtyWrites, Waiting: st.Waiting,
		BarrierSeq: st.BarrierSeq, LogBytes: st.LogBytes, UploadedBytes: st.UploadedSize, Lost: st.Lost,
	}
	d.OldestDirty, d.BarrierTime = age(st.OldestDirty), barrier(st.BarrierTime)
	if o, ok := m.mu.owed[name]; ok { // read-only, over what an earlier attach left
		d.DirtyBytes, d.DirtyWrites, d.OldestDirty = o.Owed, o.Writes, age(o.Oldest)
	}
	return d
}

// age of the oldest of some writes in seconds, 0 when there is none.
func age(oldest time.Time) float64 {
	if oldest.IsZero() {
		return 0
	}
	return max(0, time.Since(oldest).Seconds())
}

func barrier(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := t.UTC().Format(time.RFC3339Nano)
	return &s
}

// Sweep looks at every disk once and reports states that changed; called about once a second with what Status returned.
func (m *Manager) Sweep(list []api.Disk) {
	for _, d := range list {
		m.mu.Lock()
		was := m.mu.states[d.Name]
		m.mu.states[d.Name] = d.State
		m.mu.Unlock()
		if worthTelling(was, d.State) {
			m.o.Events.changed(d, was)
		}
	}
}

// worthTelling: a disk that begins well is no news.
func worthTelling(was, now string) bool {
	fine := func(s string) bool { return s == "" || s == "ok" || s == "opening" || s == "detached" }
	return was != now && !(fine(was) && fine(now))
}
