package exports

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"

	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/fuse"
)

const ublkControl = "/dev/ublk-control"

// choose settles the frontend for what was asked, and says why.
func choose(asked string) (kind, why string, err error) {
	missing := ublkMissing()
	switch asked {
	case "", "auto":
		return "fuse", "no ublk: " + missing, nil
	case "fuse":
		return "fuse", "as asked", nil
	case "ublk-zc", "ublk-copy":
		return "", "", refused("frontend %s cannot be used: %s; leave --frontend out and the disk is served through FUSE", asked, missing)
	}
	return "", "", invalid("unknown frontend %q: use auto, ublk-zc, ublk-copy or fuse", asked)
}

func ublkMissing() string {
	if _, err := os.Stat(ublkControl); errors.Is(err, fs.ErrNotExist) {
		return ublkControl + " is missing (`modprobe ublk_drv`, on kernels that have it)"
	}
	return "this version serves disks through FUSE only"
}

// front is the FUSE mount: there while a disk uses it.
type front struct {
	dir     string
	log     *slog.Logger
	onPanic func(name string, value any, stack []byte)

	mu     sync.Mutex
	server *fuse.Server
	disks  int
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
	return nil
}

func (f *front) unmountIfUnusedLocked() error {
	if f.disks > 0 || f.server == nil {
		return nil
	}
	err := f.server.Unmount()
	f.server = nil
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
