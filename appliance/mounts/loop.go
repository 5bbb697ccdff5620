package mounts

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// LoopOptions of Attach.
type LoopOptions struct {
	Sector   int // logical block size of the device: 512 or 4096
	ReadOnly bool
	PartScan bool // look for partitions
}

// Loop holds a loop device open.
type Loop struct {
	f      *os.File
	direct bool
}

const (
	loopControl = "/dev/loop-control"
	// attempts to get a loop device that nobody else takes between LOOP_CTL_GET_FREE and LOOP_CONFIGURE
	loopAttempts = 64
)

// Attach puts a loop device over file, with direct I/O where the file offers it. The device goes away when the Loop is
// closed and nobody else (a mount) has it open.
func Attach(file string, o LoopOptions) (*Loop, error) {
	mode := os.O_RDWR
	if o.ReadOnly {
		mode = os.O_RDONLY
	}
	file, err := resolve(file)
	if err != nil {
		return nil, fmt.Errorf("attach a loop device: %w", err)
	}
	backing, err := os.OpenFile(file, mode, 0)
	if err != nil {
		return nil, fmt.Errorf("attach a loop device: %w", err)
	}
	defer backing.Close()
	ctl, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return nil, loopDriverError(err)
	}
	defer ctl.Close()
	config := o.config(backing)
	for range loopAttempts {
		l, err := attachOnce(ctl, &config)
		if err == nil {
			return l, nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attach a loop device to %s: %w", file, err)
		}
	}
	return nil, fmt.Errorf("attach a loop device to %s: %w (somebody else took %d free ones)", file, unix.EBUSY, loopAttempts)
}

func (o LoopOptions) config(backing *os.File) unix.LoopConfig {
	c := unix.LoopConfig{Fd: uint32(backing.Fd()), Size: uint32(o.Sector)}
	c.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
	if o.ReadOnly {
		c.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	if o.PartScan {
		c.Info.Flags |= unix.LO_FLAGS_PARTSCAN
	}
	copy(c.Info.File_name[:len(c.Info.File_name)-1], mark(filepath.Dir(backing.Name()))+filepath.Base(backing.Name()))
	return c
}

// mark is what the names of our loop devices' files begin with. The kernel keeps 63 bytes of that name and its own idea
// of the path (BackingFile) loses the folder when a dead FUSE mount is taken away, so the folder is named by a hash.
func mark(dir string) string {
	h := sha256.Sum256([]byte(dir))
	return fmt.Sprintf("glidefs:%x:", h[:12])
}

// attachOnce gives EBUSY when the free device was taken by somebody else meanwhile.
func attachOnce(ctl *os.File, config *unix.LoopConfig) (*Loop, error) {
	n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("find a free one: %w", err)
	}
	f, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlLoopConfigure(int(f.Fd()), config); err != nil {
		f.Close()
		return nil, fmt.Errorf("configure %s: %w", f.Name(), err)
	}
	// A backing file without direct I/O drops the flag in silence.
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("status of %s: %w", f.Name(), err)
	}
	return &Loop{f: f, direct: info.Flags&unix.LO_FLAGS_DIRECT_IO != 0}, nil
}

func loopDriverError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("this kernel has no loop driver loaded (modprobe loop): %w", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("loop devices need root: %w", err)
	}
	return err
}

// Device is the path of the block device.
func (l *Loop) Device() string { return l.f.Name() }

// Direct tells whether its I/O passes the file's page cache by.
func (l *Loop) Direct() bool { return l.direct }

// Close lets go of the device.
func (l *Loop) Close() error { return l.f.Close() }

// Detach lets a loop device go away as soon as nobody uses it. It is no error if it is gone.
func Detach(dev string) error {
	f, err := os.OpenFile(dev, os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	defer f.Close()
	err = unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0)
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detach %s: %w", dev, err)
	}
	return nil
}

// Grow makes a loop device as large as its file has become.
func Grow(dev string) error {
	f, err := os.OpenFile(dev, os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("grow: %w", err)
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("grow %s: %w", dev, err)
	}
	return nil
}

// LoopsOf returns the loop devices over a file, by its path: the file need not answer, or be there.
func LoopsOf(file string) ([]string, error) {
	return loopsWhere(func(backing string) bool { return backing == file })
}

func loopsWhere(match func(backing string) bool) ([]string, error) {
	devs, err := loops()
	return slices.DeleteFunc(devs, func(dev string) bool {
		backing := BackingFile(dev)
		return backing == "" || !match(backing)
	}), err
}

// loops returns all loop devices that have a file.
func loops() ([]string, error) {
	names, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for i, name := range names {
		names[i] = "/dev/" + strings.Split(name, "/")[3]
	}
	return names, err
}

// FileOf is the path of the file in fuseDir behind a loop device, "" if it has none there. Once the FUSE mount is taken
// away the kernel knows the file's name only, and the mark says which folder it was in.
func FileOf(dev, fuseDir string) string {
	dir, err := resolve(fuseDir)
	backing := BackingFile(dev)
	if err != nil || backing == "" {
		return ""
	}
	file := filepath.Join(dir, filepath.Base(backing))
	if backing == file || filepath.Dir(backing) == "/" && marked(dev, mark(dir)) {
		return file
	}
	return ""
}

// marked tells whether the name that a loop device was given begins with mark.
func marked(dev, mark string) bool {
	f, err := os.Open(dev)
	if err != nil {
		return false // detached just now, or not for us
	}
	defer f.Close()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	return err == nil && bytes.HasPrefix(info.File_name[:], []byte(mark))
}

// BackingFile is the path of the file behind a loop device as it was at the attach, "" if there is none.
func BackingFile(dev string) string {
	b, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(dev), "loop/backing_file"))
	if err != nil {
		return "" // not a loop device, or detached just now
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), " (deleted)")
}
