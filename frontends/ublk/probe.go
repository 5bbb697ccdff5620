package ublk

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Support says what this host can do, and why not.
type Support struct {
	ZeroCopy bool
	UserCopy bool
	// Reason says in words what is missing; "" when nothing is.
	Reason   string
	Features uint64 // as the driver reports them
}

// forceCopyEnv, when set to anything but the empty string, makes devices copy on a kernel that could do without.
const forceCopyEnv = "GLIDEFS_FORCE_USER_COPY"

// Probe asks the driver what it can do. It may load the module, and blocks for as long as that takes. It makes no
// device: what one is really granted is read back when it is made.
func Probe() Support {
	if bad := denied(release()); bad != "" {
		return Support{Reason: bad}
	}
	if err := controlNode(); err != nil {
		return Support{Reason: err.Error()}
	}
	c, err := openControl(slog.New(slog.DiscardHandler))
	if err != nil {
		return Support{Reason: explain(err)}
	}
	features, err := c.features()
	if err = errors.Join(err, c.close()); err != nil {
		return Support{Reason: fmt.Sprintf("the ublk driver does not tell its features (kernels before 6.5): %v", err)}
	}
	return judge(features, os.Getenv(forceCopyEnv) != "")
}

// judge tells what a driver's features are good for.
func judge(features uint64, forceCopy bool) Support {
	s := Support{Features: features}
	const (
		base = flagUserCopy | flagRecovery | flagReissue
		zero = flagZeroCopy | flagAutoBufReg | flagOffDaemon
	)
	switch {
	case features&base != base:
		s.Reason = fmt.Sprintf("this kernel's ublk driver lacks USER_COPY or USER_RECOVERY, which came with 6.5 (features %#x)", features)
		return s
	case features&zero != zero:
		s.Reason = fmt.Sprintf("this kernel's ublk driver lacks AUTO_BUF_REG or BUF_REG_OFF_DAEMON, which came with 6.17, so bytes are copied (features %#x)", features)
	case forceCopy:
		s.Reason = forceCopyEnv + " is set, so bytes are copied"
	default:
		s.ZeroCopy = true
	}
	s.UserCopy = true
	return s
}

// tethered tells whether workers' rings may defer their work (uring.SetupDeferTaskrun). Then a thread that ends takes in
// the requests that the driver has just handed over (uring.Tether), and the driver must give them back later. It does so
// when the char device is closed, from 6.15 on, which 6.16 tells. Before, it gives requests back once, when it cancels a
// queue's first command, and waits for all others with the device's lock held. There rings do not defer: what a thread
// has not taken in when it ends fails at once.
func tethered(features uint64) bool { return features&flagAutoBufReg != 0 }

// controlNode makes sure that the driver is there, loading its module if need be.
func controlNode() error {
	_, err := os.Stat(controlPath)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out, err := exec.Command(modprobe(), "ublk_drv").CombinedOutput()
	if _, statErr := os.Stat(controlPath); statErr == nil {
		return nil
	}
	why := strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "; ")
	switch {
	case err == nil:
		why = "the driver is there, and its device node is not (in a container: --device " + controlPath + ")"
	case why == "":
		why = err.Error()
	}
	return fmt.Errorf("%s is missing and `modprobe ublk_drv` did not bring it: %s", controlPath, why)
}

// modprobe is not in everybody's PATH.
func modprobe() string {
	for _, path := range []string{"/usr/sbin/modprobe", "/sbin/modprobe"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return "modprobe"
}

// explain begins with what a person can do something about.
func explain(err error) string {
	switch {
	case errors.Is(err, unix.EPERM) && strings.Contains(err.Error(), "io_uring_setup"):
		return "io_uring is forbidden here (sysctl kernel.io_uring_disabled, or a container's seccomp filter): " + err.Error()
	case errors.Is(err, unix.ENOSYS):
		return "this kernel has no io_uring: " + err.Error()
	case errors.Is(err, fs.ErrPermission):
		return "ublk needs root (CAP_SYS_ADMIN): " + err.Error()
	}
	return err.Error()
}

func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
