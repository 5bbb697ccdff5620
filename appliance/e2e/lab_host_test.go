//go:build lab

package e2e

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLabBadHost: what a host lacks costs it the frontend that needs it, and nothing else. The next frontend serves the disk;
// status keeps the reason; who insists is told it. It unloads the driver, so nobody else may have a device.
func TestLabBadHost(t *testing.T) {
	best := ways(t)[0]
	if !best.block() {
		t.Run("no driver", func(t *testing.T) {
			fallsBack(t, "fuse", "/dev/ublk-control is missing and `modprobe ublk_drv` did not bring it", "ublk-copy", "ublk-zc")
		})
		return
	}
	t.Run("as it is", func(t *testing.T) {
		forced := []string{}
		if best.frontend == "ublk-copy" {
			forced = append(forced, "ublk-zc")
		}
		fallsBack(t, best.frontend, best.why, forced...)
	})
	t.Run("driver that does not load", func(t *testing.T) {
		eventually(t, "nobody needs the driver", func() bool { return unix.DeleteModule("ublk_drv", unix.O_NONBLOCK) == nil })
		refuse := "/etc/modprobe.d/lab.conf"
		must(t, os.MkdirAll("/etc/modprobe.d", 0o755))
		must(t, os.WriteFile(refuse, []byte("install ublk_drv /bin/false\n"), 0o644))
		defer os.Remove(refuse)
		fallsBack(t, "fuse", "/dev/ublk-control is missing and `modprobe ublk_drv` did not bring it", "ublk-copy", "ublk-zc")
	})
	t.Run("driver that is not loaded", func(t *testing.T) {
		fallsBack(t, best.frontend, best.why)
		if !has(t, "/proc/modules", "ublk_drv") {
			t.Error("the driver is not loaded")
		}
	})
	t.Run("io_uring is forbidden", func(t *testing.T) {
		sysctl := "/proc/sys/kernel/io_uring_disabled"
		must(t, os.WriteFile(sysctl, []byte("2"), 0o644))
		defer func() { must(t, os.WriteFile(sysctl, []byte("0"), 0o644)) }()
		fallsBack(t, "fuse", "io_uring is forbidden here", "ublk-copy", "ublk-zc")
	})
}

// fallsBack wants a disk to be served by that frontend, for that reason, and the forced ones to be refused for it.
func fallsBack(t *testing.T, frontend, why string, forced ...string) {
	t.Helper()
	w := way{frontend: frontend, why: why}
	store := folder(t)
	m := w.machine(t, store)
	for _, f := range forced {
		m.fails(exitFailed, []string{"attach", "d", "--size", "64M", "--frontend", f}, "frontend "+f+" cannot be used", why)
	}
	if _, err := os.Stat(store.dir + "/volumes/d"); err == nil {
		t.Error("a refused attach has made the disk")
	}
	s := newStamps(256)
	s.fill(t, m.attach("d", "--size", "64M"))
	w.check(m, "d")
	if shown := m.ok("status"); frontend != "ublk-zc" && !strings.Contains(shown, why) {
		t.Errorf("status does not tell why it is %s:\n%s", frontend, shown)
	}
	if shown := m.ok("doctor"); !strings.Contains(shown, frontend) || frontend != "ublk-zc" && !strings.Contains(shown, why) {
		t.Errorf("doctor does not tell why it is %s:\n%s", frontend, shown)
	}
	m.crash() // and the next daemon still knows
	s.check(t, m.attach("d"))
	w.check(m, "d")
	m.ok("detach", "d")
}
