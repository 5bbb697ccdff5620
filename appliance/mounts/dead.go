package mounts

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unsafe"

	"glidefs-appliance/frontends/fuse"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// probeTime is how long a probe may take before its object counts as alive but slow.
const probeTime = 2 * time.Second

// CleanDead removes what a dead daemon left behind that had its FUSE mount at fuseDir: file systems on loop devices
// over its files (lazily: their users get EIO), the loop devices, the FUSE mount. It leaves alone what answers, and what
// does not answer in time. It returns where file systems were mounted.
//
// A loop device is dead when reading it fails and the FUSE connection that it was attached to is no mount that answers.
// Both are needed: a living disk may fail a read, and after a restart another connection is mounted at the same place.
// The connection comes first: a read through a loop device whose daemon is stopped cannot be interrupted, not even by
// kill -9, and would keep this process until the daemon goes on.
func CleanDead(fuseDir string) (cleaned []string, err error) {
	fuseDir, err = resolve(fuseDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	devs, err := loops()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, dev := range devs {
		if !deadLoop(dev, mark(fuseDir)) {
			continue
		}
		at, err := dropLoop(dev)
		cleaned, errs = append(cleaned, at...), append(errs, err)
	}
	err = within(probeTime, func() error {
		_, err := fuse.CleanDead(fuseDir)
		return err
	})
	if !errors.Is(err, errSlow) {
		errs = append(errs, err)
	}
	return cleaned, errors.Join(errs...)
}

// dropLoop unmounts what is on dev lazily and detaches it.
func dropLoop(dev string) ([]string, error) {
	at, err := Of(dev)
	if err != nil {
		return nil, err
	}
	errs := make([]error, 0, len(at)+1)
	for _, dir := range slices.Backward(at) {
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			errs = append(errs, fmt.Errorf("unmount the dead %s: %w", dir, err))
		}
	}
	return at, errors.Join(append(errs, Detach(dev))...)
}

// deadLoop tells whether dev is one of ours, by its mark, and dead.
func deadLoop(dev, mark string) bool {
	f, err := os.OpenFile(dev, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return false // detached just now
	}
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil || !bytes.HasPrefix(info.File_name[:], []byte(mark)) || answers(int(unix.Minor(info.Device))) {
		f.Close()
		return false
	}
	err = within(probeTime, func() error {
		defer f.Close()
		return readFirst(f)
	})
	return errors.Is(err, unix.EIO)
}

func readFirst(f *os.File) error {
	const n = 4096
	b := make([]byte, 2*n)
	skip := n - int(uintptr(unsafe.Pointer(&b[0]))%n)
	_, err := f.ReadAt(b[skip:skip+n], 0)
	return err
}

// answers tells whether a FUSE connection, named by its minor number, is mounted and alive or merely slow.
func answers(minor int) bool {
	found, err := where(func(m *mountinfo.Info) bool {
		return m.Major == 0 && m.Minor == minor && strings.HasPrefix(m.FSType, "fuse.")
	})
	if err != nil {
		return true
	}
	for _, m := range found {
		err := within(probeTime, func() error {
			var st unix.Statfs_t
			return unix.Statfs(m.Dir, &st)
		})
		if !errors.Is(err, unix.ENOTCONN) {
			return true
		}
	}
	return false
}

var errSlow = errors.New("no answer in time")

// within runs f and gives up waiting for it after d; f then ends when the kernel lets it.
func within(d time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(d):
		return errSlow
	}
}
