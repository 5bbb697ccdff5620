// Package exports owns the disks of a daemon from attach to detach, and the operations on disks in the store.
//
//	            attach                      detach, after Sync
//	nothing ─────────────► attached ─────────────────────────► nothing
//	   ▲                      │ daemon dies       │ writes left    ▲
//	   │                      ▼                   ▼                │ Sync
//	   └──── clean stop    exports.json ────► owed ────────────────┘
//
// The list of attached disks is kept in the state dir. A daemon that starts opens again what the last one had attached
// and did not give up: the store says that we own it, so nobody else is asked to wait for us. What a clean stop closed is
// nobody's and stays closed until somebody asks for it.
//
// Lock order:
//
//	names          one operation at a time on a disk's name: attach, detach, resize, rm, salvage, abandon; held across
//	               I/O and store requests, waited for by callers with a limit
//	  front.mu     the FUSE mount; held while it is mounted or unmounted
//	  blocks.mu    the ublk server; held while it is started
//	  Manager.mu   the tables; never held across I/O
//	  saveMu       exports.json; taken with none of the others but names held
package exports

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/statedir"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/volume"
	"glidefs-appliance/frontends"
)

// Health of the object store.
type Health struct {
	Text string    // "ok", or what is wrong
	Away time.Time // since when the store has not answered; zero while it does
	// The first and the last of the writes that failed since one was answered, whatever became of reads; zero if none has.
	Refusing, Refused time.Time
}

// Options of a Manager; all fields are needed.
type Options struct {
	Host   *volume.Host
	State  *statedir.State
	Log    *slog.Logger
	Health func() Health
	// Usage fills what all disks of the host share.
	Usage func() api.Host
	// Program begins our commands in messages, so that they mean this state dir.
	Program string
	// SyncTimeout ends what waits for a store that has been away for so long.
	SyncTimeout time.Duration
	Events      Events
	// Life ends with the daemon, and with it what runs in the background.
	Life context.Context
}

// Manager holds the disks of a daemon. Its methods are safe for concurrent use; errors are *api.Error where a client
// can do something about them.
type Manager struct {
	o      Options
	names  names
	front  front
	blocks blocks

	garbage garbage

	mu struct {
		sync.Mutex
		disks  map[string]*export
		owed   map[string]statedir.Export
		states map[string]string // last state reported, by name
		ever   bool              // something was attached
	}
	saveMu sync.Mutex
}

// export is an attached disk; immutable.
type export struct {
	vol       *volume.Volume
	path      string
	frontend  string
	why       string
	asked     bool // for that frontend
	readOnly  bool
	bare      bool
	since     time.Time
	reattach  error // why the disk of the last daemon could not be opened again; vol is nil then
	wasBefore statedir.Export
}

// New returns a manager without disks; Restore brings back those of the last daemon.
func New(o Options) *Manager {
	m := &Manager{o: o}
	m.front.init(o.State.Fuse(), o.Log, m.panicked)
	m.blocks.owner, m.blocks.log, m.blocks.onPanic = o.State.Owner(), o.Log, m.panicked
	m.mu.disks = map[string]*export{}
	m.mu.owed = map[string]statedir.Export{}
	m.mu.states = map[string]string{}
	return m
}

// Attached counts the disks that are open; ever tells whether there was one.
func (m *Manager) Attached() (n int, ever bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.mu.disks {
		if e.vol != nil {
			n++
		}
	}
	return n, m.mu.ever
}

func (m *Manager) get(name string) *export {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.mu.disks[name]; e != nil && e.vol != nil {
		return e
	}
	return nil
}

// Attach opens a disk and gives it to a frontend.
func (m *Manager) Attach(ctx context.Context, name string, a api.Attach) (api.Attached, error) {
	if err := checkAttach(name, a); err != nil {
		return api.Attached{}, err
	}
	return bounded(ctx, m, func(ctx context.Context) (api.Attached, error) { return m.attachOnce(ctx, name, a) })
}

func (m *Manager) attachOnce(ctx context.Context, name string, a api.Attach) (api.Attached, error) {
	release, err := m.names.take(ctx, name, "being attached")
	if err != nil {
		return api.Attached{}, err
	}
	defer release()
	if e := m.get(name); e != nil {
		return m.again(name, e, a)
	}
	c, err := choose(a.Frontend, m.blocks.probe())
	if err != nil {
		return api.Attached{}, err
	}
	c.bare = a.Bare
	return m.attach(ctx, name, a, c)
}

// attach does it, with the name taken and the frontend settled.
func (m *Manager) attach(ctx context.Context, name string, a api.Attach, c choice) (api.Attached, error) {
	vol, created, err := m.open(ctx, name, a)
	if err != nil {
		return api.Attached{}, m.explain(name, err)
	}
	e, err := m.publish(ctx, vol, c, a.ReadOnly)
	if err != nil {
		return api.Attached{}, errors.Join(err, closeVolume(vol))
	}
	r := attached(e)
	r.Created = created
	m.o.Events.attached(r)
	return r, nil
}

func checkAttach(name string, a api.Attach) error {
	if err := checkName(name); err != nil {
		return err
	}
	if a.Size != 0 {
		if err := checkSize(a.Size); err != nil {
			return err
		}
	}
	if a.Sector != 0 && a.Sector != 512 && a.Sector != 4096 {
		return invalid("sector size %d: use 512 or 4096", a.Sector)
	}
	if a.Takeover && a.ReadOnly {
		return invalid("takeover is for writing; read-only asks nobody")
	}
	return nil
}

// again answers for a disk that is attached.
func (m *Manager) again(name string, e *export, a api.Attach) (api.Attached, error) {
	r := attached(e)
	r.Already = true
	switch {
	case a.Size != 0 && a.Size != r.Size:
		return r, m.sizeError(name, r.Size, a.Size)
	case a.Sector != 0 && a.Sector != r.Sector:
		return r, sectorError(name, r.Sector, a.Sector)
	case a.ReadOnly != r.ReadOnly:
		return r, busy("disk %q is attached %s; detach it first", name, map[bool]string{true: "read-only", false: "for writing"}[r.ReadOnly])
	case a.Frontend != "" && a.Frontend != "auto" && a.Frontend != r.Frontend:
		return r, busy("disk %q is attached through %s; detach it first", name, r.Frontend)
	}
	if st := e.vol.Status(); st.State == "fenced" || st.State == "failed" {
		return r, busy("disk %q is %s: %s; `%s` lets go of it and keeps its log", name, st.State, st.Reason, m.command("detach --force "+name))
	}
	return r, nil
}

func attached(e *export) api.Attached {
	return api.Attached{
		Name: e.vol.Name(), Path: e.path, Frontend: e.frontend, Why: e.why,
		Size: e.vol.Size(), Sector: e.vol.SectorSize(), ReadOnly: e.readOnly,
	}
}

// open opens the volume, making it when that is asked for.
func (m *Manager) open(ctx context.Context, name string, a api.Attach) (vol *volume.Volume, created bool, err error) {
	o := volume.OpenOptions{Sector: a.Sector, Takeover: a.Takeover, ReadOnly: a.ReadOnly}
	vol, err = volume.Open(ctx, m.o.Host, name, o)
	if errors.Is(err, volume.ErrNotFound) && a.Create && !a.ReadOnly {
		o.Create, created = a.Size, true
		if o.Create == 0 {
			o.Create = api.DefaultSize
		}
		vol, err = volume.Open(ctx, m.o.Host, name, o)
	}
	if err != nil {
		return nil, false, err
	}
	if a.Size != 0 && a.Size != vol.Size() {
		return nil, false, errors.Join(m.sizeError(name, vol.Size(), a.Size), closeVolume(vol))
	}
	if a.Sector != 0 && a.Sector != vol.SectorSize() {
		return nil, false, errors.Join(sectorError(name, vol.SectorSize(), a.Sector), closeVolume(vol))
	}
	return vol, created, nil
}

// publish gives an open volume to the frontend and enters it in the tables.
func (m *Manager) publish(ctx context.Context, vol *volume.Volume, c choice, readOnly bool) (*export, error) {
	path, c, err := m.serve(ctx, vol, c, readOnly)
	if err != nil {
		return nil, err
	}
	e := &export{vol: vol, path: path, frontend: c.kind, why: c.why, asked: c.asked, readOnly: readOnly, bare: c.bare, since: time.Now().UTC()}
	m.mu.Lock()
	m.mu.disks[vol.Name()] = e
	m.mu.ever = true
	if !readOnly {
		delete(m.mu.owed, vol.Name())
	}
	m.mu.Unlock()
	m.save()
	return e, nil
}

// save writes the list of disks to the state dir. A failure is logged only: the disk works, and the list is needed only
// after a crash.
func (m *Manager) save() {
	m.saveMu.Lock()
	defer m.saveMu.Unlock()
	if err := m.o.State.SetExports(m.list()); err != nil {
		m.o.Log.Error("the list of attached disks is not saved", "err", err)
	}
}

func (m *Manager) list() []statedir.Export {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []statedir.Export
	for name, e := range m.mu.disks {
		if e.vol == nil {
			list = append(list, e.wasBefore)
			continue
		}
		l := statedir.Export{
			Name: name, Frontend: e.frontend, Asked: e.asked, ReadOnly: e.readOnly, Bare: e.bare,
			Attached: true, Boot: m.o.Host.BootID, Since: e.since,
		}
		if e.frontend != fuseFile {
			l.Device = e.path
		}
		list = append(list, l)
	}
	for _, o := range m.mu.owed {
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b statedir.Export) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// panicked ends a disk below whose frontend the code panicked: its state in memory cannot be trusted any more.
func (m *Manager) panicked(name string, value any, stack []byte) {
	if e := m.get(name); e != nil {
		_ = e.vol.Panicked(value, stack)
		return
	}
	m.o.Log.Error("panic in the work of a disk that is not attached", "disk", name, "panic", value, "stack", string(stack))
}

// closeVolume gives a volume up again after something else went wrong.
func closeVolume(vol *volume.Volume) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return vol.Close(ctx)
}

var _ frontends.Disk = (*volume.Volume)(nil)

func checkName(name string) error {
	if err := manifest.ValidName(name); err != nil {
		return invalid("%v", err)
	}
	return nil
}
