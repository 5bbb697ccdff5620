package exports

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"glidefs-appliance/appliance/statedir"
	"glidefs-appliance/backend/volume"
	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/fuse"
	"glidefs-appliance/frontends/ublk"
)

// The frontends, as people and files call them.
const (
	ublkZero = "ublk-zc"
	ublkCopy = "ublk-copy"
	fuseFile = "fuse"
)

// choice is a frontend and why it is that one.
type choice struct {
	kind, why string
	asked     bool // for exactly this one: no other will do
	kept      bool // users have it open since the last daemon: no other will do either
	bare      bool // see api.Attach
}

// choose settles the frontend for what was asked and what the kernel offers.
func choose(asked string, s ublk.Support) (choice, error) {
	best := choice{kind: fuseFile, why: "no ublk: " + s.Reason}
	switch {
	case s.ZeroCopy:
		best = choice{kind: ublkZero, why: "the kernel offers zero copy"}
	case s.UserCopy:
		best = choice{kind: ublkCopy, why: s.Reason}
	}
	switch asked {
	case "", "auto":
		return best, nil
	case fuseFile, best.kind:
		return choice{kind: asked, why: "as asked", asked: true}, nil
	case ublkZero, ublkCopy:
		if asked == ublkCopy && s.UserCopy {
			return choice{kind: asked, why: "as asked", asked: true}, nil
		}
		return choice{}, refused("frontend %s cannot be used: %s; leave --frontend out and the disk is served through %s", asked, s.Reason, spoken[best.kind])
	}
	return choice{}, invalid("unknown frontend %q: use auto, ublk-zc, ublk-copy or fuse", asked)
}

// chooseAgain settles the frontend of a disk that the last daemon had. Since a boot nobody has it open, and it gets what
// is best now; before that the same again, so that its users find what they had. What was asked for stays, if it can.
func chooseAgain(was statedir.Export, booted bool, s ublk.Support) choice {
	best, _ := choose("auto", s) // there is always one
	if booted && !was.Asked {
		return best
	}
	same, err := choose(was.Frontend, s)
	if err != nil {
		return best
	}
	same.asked, same.kept = was.Asked, !booted
	switch {
	case was.Asked: // as the answer says
	case same.kind == best.kind:
		same.why = best.why
	default:
		same.why = "as before the daemon was started again"
	}
	return same
}

var spoken = map[string]string{fuseFile: "FUSE", ublkCopy: "ublk with copying", ublkZero: "ublk with zero copy"}

// serve gives a disk to a frontend: to FUSE where ublk was not asked for and fails.
func (m *Manager) serve(ctx context.Context, vol *volume.Volume, c choice, readOnly bool) (path string, is choice, err error) {
	if c.kind != fuseFile {
		path, c.kind, err = m.blocks.add(ctx, vol.Name(), vol, ublk.AddOptions{Copy: c.kind == ublkCopy, Bare: c.bare})
		if err == nil || c.asked || c.kept {
			return path, c, err
		}
		m.o.Log.Warn("ublk failed, the disk is served through FUSE", "disk", vol.Name(), "err", err)
		c = choice{kind: fuseFile, why: "ublk failed: " + err.Error()}
	}
	path, err = m.front.add(vol.Name(), vol, readOnly)
	return path, c, err
}

// withhold takes a disk from its frontend; busy errors are the frontend's own.
func (m *Manager) withhold(ctx context.Context, name string, e *export, force bool) error {
	if e.frontend == fuseFile {
		return m.front.remove(ctx, name, force)
	}
	s, err := m.blocks.open()
	if err != nil {
		return err
	}
	if err := s.Remove(ctx, name, force); err != nil && !errors.Is(err, ublk.ErrNotFound) {
		return err
	}
	return nil
}

// resized shows users of an attached disk its new size; false when they see it at the next attach only.
func (m *Manager) resized(name string, e *export) (live bool, err error) {
	if e.frontend == fuseFile {
		return true, m.front.resize(name)
	}
	s, err := m.blocks.open()
	if err != nil {
		return false, err
	}
	if err := s.Resize(name); !errors.Is(err, errors.ErrUnsupported) {
		return true, err
	}
	return false, nil
}

// front is the FUSE mount: there while a disk uses it.
type front struct {
	dir     string
	log     *slog.Logger
	onPanic func(name string, value any, stack []byte)

	mu     sync.Mutex
	server *fuse.Server
	disks  int

	counts atomic.Pointer[fuse.Server] // for Sizes
}

func (f *front) init(dir string, log *slog.Logger, onPanic func(string, any, []byte)) {
	f.dir, f.log, f.onPanic = dir, log, onPanic
}

// add makes a disk a file and returns its path.
func (f *front) add(name string, d frontends.Disk, readOnly bool) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.server == nil {
		if err := f.mountLocked(); err != nil {
			return "", err
		}
	}
	path, err := f.server.Add(name, d, readOnly)
	if err != nil {
		return "", errors.Join(err, f.unmountIfUnusedLocked())
	}
	f.disks++
	return path, nil
}

// mountLocked mounts, over what a dead daemon may have left.
func (f *front) mountLocked() error {
	if _, err := fuse.CleanDead(f.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("mount FUSE: %w", err)
	}
	s, err := fuse.Mount(f.dir, fuse.Options{Logger: f.log, OnPanic: f.onPanic})
	if err != nil {
		return err
	}
	f.server = s
	f.counts.Store(s)
	return nil
}

func (f *front) unmountIfUnusedLocked() error {
	if f.disks > 0 || f.server == nil {
		return nil
	}
	err := f.server.Unmount()
	f.server = nil
	f.counts.Store(nil)
	return err
}

// remove takes a disk's file away: when nobody has it open, until ctx ends; or, by force, at once.
func (f *front) remove(ctx context.Context, name string, force bool) error {
	f.mu.Lock()
	server := f.server
	f.mu.Unlock()
	if server == nil {
		return nil
	}
	take := server.Remove
	if force {
		take = server.Evict
	}
	if err := take(ctx, name); err != nil && !errors.Is(err, fuse.ErrNotFound) {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.disks--
	return f.unmountIfUnusedLocked()
}

// resize shows users of the file its new size.
func (f *front) resize(name string) error {
	f.mu.Lock()
	server := f.server
	f.mu.Unlock()
	if server == nil {
		return nil
	}
	return server.Resize(name)
}
