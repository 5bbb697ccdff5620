package e2e

import (
	"testing"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/client"

	"golang.org/x/sys/unix"
)

// TestStatusAlwaysAnswers: the daemon is stopped by a signal, or dead, and status answers within a second.
func TestStatusAlwaysAnswers(t *testing.T) {
	t.Parallel()
	m := newMachine(t, folder(t), `upload_age = "1h"`)
	s := newStamps(256)
	s.fill(t, m.attach("d", "--size", "64M"))
	running := promptStatus(t, m, "d", client.Running)

	pid := m.daemon()
	must(t, unix.Kill(pid, unix.SIGSTOP))
	stuck := promptStatus(t, m, "d", client.Stuck)
	must(t, unix.Kill(pid, unix.SIGCONT))
	promptStatus(t, m, "d", client.Running)

	m.crash()
	stopped := promptStatus(t, m, "d", client.Stopped)
	for _, d := range []api.Disk{stuck, stopped} {
		if d.SizeBytes != running.SizeBytes || d.Device != running.Device || d.Epoch != running.Epoch || d.AsOf.IsZero() {
			t.Errorf("status shows %+v; while the daemon ran it was %+v", d, running)
		}
	}
}

// promptStatus is the status of the disk. The second is for the command, not for what else this machine is doing: the
// fastest of several counts.
func promptStatus(t *testing.T, m *machine, name, daemon string) api.Disk {
	t.Helper()
	fastest := time.Hour
	for range 5 {
		r := m.run("--json", "status", name)
		m.want(r, []string{"status"}, 0)
		if fastest = min(fastest, r.took); fastest < time.Second {
			break
		}
	}
	if fastest >= time.Second {
		t.Errorf("with the daemon %s, status takes %s", daemon, fastest)
	}
	d := m.status(name)
	if d.Daemon != daemon {
		t.Errorf("daemon %s, want %s", d.Daemon, daemon)
	}
	return d
}
