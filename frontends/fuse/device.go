package fuse

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

const devFuse = "/dev/fuse"

// Usable returns what is in the way of a mount, or nil.
func Usable() error {
	if err := checkDevice(devFuse); err != nil {
		return err
	}
	return checkHelper()
}

// checkHelper looks for what mounts when this is not root.
func checkHelper() error {
	if os.Geteuid() == 0 {
		return nil
	}
	if _, err := exec.LookPath("fusermount3"); err != nil {
		return fmt.Errorf("%w (as root: apt install fuse3)", err)
	}
	return nil
}

// checkDevice says what is wrong with the FUSE device, which mount errors and fusermount3 do not.
func checkDevice(dev string) error {
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err == nil {
		return f.Close()
	}
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w: this kernel has no FUSE loaded (as root: modprobe fuse; in a container: --device %s)", err, dev)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: it %s, and this is uid %d (as root: chmod 0666 %s; in a container also --device %s)", err, describe(dev), os.Geteuid(), dev, dev)
	}
	return err
}

func describe(dev string) string {
	var st unix.Stat_t
	if err := unix.Stat(dev, &st); err != nil {
		return "cannot be examined: " + err.Error()
	}
	return fmt.Sprintf("has mode %04o and belongs to uid %d, gid %d", st.Mode&0o7777, st.Uid, st.Gid)
}

// CleanDead takes away a FUSE mount at dir whose daemon is dead (every access gives ENOTCONN) and reports whether there
// was one. A living mount, a plain directory and a missing one are left alone. It blocks on a living mount whose daemon
// does not answer.
//
// A daemon that starts does this at the same moment as a command: what was looked at is what is unmounted, and never the
// new mount that took its place.
func CleanDead(dir string) (bool, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, nil
	}
	defer unix.Close(root)
	var st unix.Statfs_t // a stat would be answered from the kernel's cache
	if err := unix.Fstatfs(root, &st); !errors.Is(err, unix.ENOTCONN) {
		return false, nil
	}
	if err := detachRoot(root, dir); err != nil {
		return false, fmt.Errorf("clean up the dead mount at %s: %w", dir, err)
	}
	return true, nil
}

// detachRoot unmounts lazily what the descriptor of its root names. EINVAL: it is unmounted already.
func detachRoot(root int, dir string) error {
	err := unix.Unmount(fmt.Sprintf("/proc/self/fd/%d", root), unix.MNT_DETACH)
	switch {
	case errors.Is(err, unix.EINVAL):
		return nil
	case errors.Is(err, unix.EPERM):
		return detach(dir) // fusermount3 knows paths only
	}
	return err
}

// detach unmounts lazily, by itself or through fusermount3 when this is not root.
func detach(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH)
	if err == nil || !errors.Is(err, unix.EPERM) {
		return err
	}
	out, ferr := exec.Command("fusermount3", "-u", "-z", dir).CombinedOutput()
	if ferr != nil {
		return fmt.Errorf("fusermount3 -uz %s: %w: %s", dir, ferr, out)
	}
	return nil
}

// closeOnExec marks the device that go-fuse opens when it mounts by itself: a child of ours that has it keeps the connection
// after we are dead, and whoever waits on it waits for ever.
func closeOnExec() {
	const open = "/proc/self/fd"
	fds, _ := os.ReadDir(open)
	for _, fd := range fds {
		n, err := strconv.Atoi(fd.Name())
		if to, _ := os.Readlink(filepath.Join(open, fd.Name())); err == nil && to == devFuse {
			unix.CloseOnExec(n)
		}
	}
}
