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
		list = append(list, m.describe(name, e))
	}
	for _, o := range m.mu.owed {
		list = append(list, detached(o))
	}
	m.mu.Unlock()
	for i := range list {
		list[i].Host = host
	}
	slices.SortFunc(list, func(a, b api.Disk) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// detached describes a disk with writes that are only in its log here.
func detached(o statedir.Export) api.Disk {
	return api.Disk{
		Name: o.Name, State: "detached", DirtyBytes: o.Owed, OldestDirty: time.Since(o.Since).Seconds(),
		Reason: "not attached; writes that are only here are uploaded by `sync " + o.Name + "`", MountedOn: []string{},
	}
}

func (m *Manager) describe(name string, e *export) api.Disk {
	if e.vol == nil {
		was := e.wasBefore
		d := api.Disk{Name: name, ReadOnly: was.ReadOnly, Frontend: was.Frontend, Device: was.Device, State: "opening", MountedOn: []string{}}
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
		BarrierSeq: st.BarrierSeq, LogBytes: st.LogBytes, UploadedBytes: st.UploadedSize,
	}
	if !st.OldestDirty.IsZero() {
		d.OldestDirty = max(0, time.Since(st.OldestDirty).Seconds())
	}
	if !st.BarrierTime.IsZero() {
		t := st.BarrierTime.UTC().Format(time.RFC3339Nano)
		d.BarrierTime = &t
	}
	return d
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
