package mounts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoFS: the device holds no file system.
var ErrNoFS = errors.New("no file system found")

// Mount mounts the file system that is on dev at dir, which PrepareDir has approved, and returns its type. Read-only
// mounts don't replay a journal.
func Mount(ctx context.Context, dev, dir string, readOnly bool) (fsType string, err error) {
	fsType, err = FSType(ctx, dev)
	if err != nil {
		return "", err
	}
	if fsType == "" {
		return "", fmt.Errorf("mount %s: %w", dev, ErrNoFS)
	}
	k, flags := kinds[fsType], uintptr(0)
	options := k.options
	if readOnly {
		flags, options = unix.MS_RDONLY, k.readOnly
	}
	if err := unix.Mount(dev, dir, fsType, flags, options); err != nil {
		return fsType, fmt.Errorf("mount %s (%s) at %s: %w%s", dev, fsType, dir, err, hint(err, fsType))
	}
	return fsType, nil
}

func hint(err error, fsType string) string {
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Sprintf(" (this kernel has no %s: modprobe %s)", fsType, fsType)
	case errors.Is(err, unix.EPERM):
		return " (mounting needs root)"
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EUCLEAN):
		return " (dmesg says more)"
	}
	return ""
}

// ErrNotSynced: the file system is unmounted, but the disk refused some of what it wanted to write before.
var ErrNotSynced = errors.New("unmounted, but not everything could be written before")

// BusyError: a file system is in use.
type BusyError struct {
	Dir   string
	Users []string // who, in words; empty if they hide
}

func (e *BusyError) Error() string {
	if len(e.Users) == 0 {
		return e.Dir + " is in use"
	}
	s := e.Dir + " is in use by "
	const shown = 5
	for i, u := range e.Users {
		switch {
		case i == shown:
			return s + fmt.Sprintf(" and %d more", len(e.Users)-shown)
		case i > 0:
			s += ", "
		}
		s += u
	}
	return s
}

func (e *BusyError) Unwrap() error { return unix.EBUSY }

const (
	// busyFor is how long Unmount tries: udev and indexers look into new mounts.
	busyFor   = time.Second
	busyRetry = 50 * time.Millisecond
)

// Unmount writes the file system at dir out and unmounts it. It gives a *BusyError when somebody uses it, and
// ErrNotSynced, unmounted all the same, when the disk failed.
func Unmount(ctx context.Context, dir string) error {
	dir, err := resolve(dir)
	if err != nil {
		return err
	}
	unsynced := syncFS(dir)
	if err := unmount(ctx, dir); err != nil {
		return err
	}
	if unsynced != nil {
		return fmt.Errorf("%s: %w: %w", dir, ErrNotSynced, unsynced)
	}
	return nil
}

// syncFS asks for the errors of write-back, which umount(2) keeps to itself.
func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

func unmount(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, busyFor)
	defer cancel()
	retry := time.NewTicker(busyRetry)
	defer retry.Stop()
	for {
		err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return &BusyError{Dir: dir, Users: users(dir)}
		}
	}
}
