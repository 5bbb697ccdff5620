//go:build lab

package e2e

import (
	"context"
	"os"
	"testing"

	"glidefs-appliance/appliance/statedir"

	"golang.org/x/sys/unix"
)

// installed is the machine of the units: state, cache and store where a package has them. Needs a guest with systemd.
func installed(t *testing.T) *machine {
	t.Helper()
	if os.Getenv(labEnv) != "fuse" {
		_ = unix.DeleteModule("ublk_drv", 0) // the unit is to load it
	}
	mustRun(t, "vagrant/provision.sh", "install", os.Getenv(labEnv))
	program = "/usr/local/bin/glidefs-appliance"
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(mustRun(t, "journalctl", "--no-pager", "-o", "short-monotonic", "-u", "glidefs-*"))
		}
	})
	return &machine{t: t, dir: scratch(t), state: "/var/lib/glidefs-appliance", env: os.Environ()}
}

// TestLabUnits: installed as vagrant/provision.sh does it, the daemon starts, loads the driver and has its rings in
// spite of all that its unit forbids it; the mount unit mounts, and its stop puts everything into the store. What is
// mounted lives through restarts of the daemon, in order and by kill.
func TestLabUnits(t *testing.T) {
	w := ways(t)[0]
	m := installed(t)
	if w.block() && !has(t, "/proc/modules", "ublk_drv") {
		t.Error("the unit has not loaded the driver")
	}
	t.Logf("%s%s", mustRun(t, "systemctl", "show", "glidefs-appliance", "-p", "LimitMEMLOCK", "-p", "CapabilityBoundingSet"), m.ok("doctor"))
	must(t, os.WriteFile("/etc/glidefs-appliance/mounts/unit.toml", []byte("size = \"192M\"\n"), 0o644))
	mustRun(t, "systemctl", "start", "glidefs-mount@unit")
	w.check(m, "unit")
	unit := &files{dir: "/srv/glidefs-mounts/unit", sums: map[string]string{}}
	must(t, unit.some(20))

	if w.block() {
		restartUnnoticed(t, w, m, unit)
	} else {
		mustRun(t, "systemctl", "restart", "glidefs-appliance")
	}
	eventually(t, "the mount unit is up", func() bool {
		return mustRun(t, "sh", "-c", "systemctl is-active glidefs-mount@unit || :") == "active\n" && len(mountsBelow(unit.dir)) == 1
	})
	unit.check(t)
	must(t, unit.some(20))
	mustRun(t, "systemctl", "stop", "glidefs-mount@unit")
	if d := m.disks(); len(d) > 0 {
		t.Errorf("after the stop status shows %+v", d)
	}
	mustRun(t, "systemctl", "stop", "glidefs-appliance")
	eventually(t, "the daemon ends", func() bool { return !statedir.Locked(m.state) })
	otherMachine(t, w, unit)
}

// otherMachine finds the files of a disk in the store, which all of them have reached.
func otherMachine(t *testing.T, w way, files *files) {
	t.Helper()
	other := w.machine(t, home{url: "file:///srv/glidefs"})
	files.dir = other.mountpoint()
	other.ok("mount", "unit", files.dir)
	files.check(t)
	other.ok("umount", files.dir)
}

// restartUnnoticed restarts the daemon under two file systems, of the mount unit and mounted by hand, that are used all
// the while.
func restartUnnoticed(t *testing.T, w way, m *machine, unit *files) {
	mnt := m.mountpoint()
	m.ok("mount", "hand", mnt, "--size", "192M")
	hand := &files{dir: mnt, sums: map[string]string{}}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 2)
	for _, f := range []*files{hand, unit} {
		go func() { ended <- f.makeWhile(ctx, func() bool { return true }) }()
	}
	for how, do := range map[string]func(){
		"restart":           func() { mustRun(t, "systemctl", "restart", "glidefs-appliance") },
		"supervisor killed": func() { mustRun(t, "systemctl", "kill", "-s", "KILL", "--kill-who=main", "glidefs-appliance") },
		"daemon killed":     func() { must(t, unix.Kill(daemonOf(m), unix.SIGKILL)) },
	} {
		before := daemonOf(m)
		do()
		eventually(t, how+": another daemon runs", func() bool { pid := daemonOf(m); return pid != 0 && pid != before })
		a, b := hand.n.Load()+5, unit.n.Load()+5
		eventually(t, how+": files are made again", func() bool { return hand.n.Load() >= a && unit.n.Load() >= b })
		w.check(m, "hand")
		w.check(m, "unit")
	}
	stop()
	for range 2 {
		if err := <-ended; err != nil {
			t.Errorf("a file could not be made: %v", err)
		}
	}
	hand.check(t)
	m.ok("umount", mnt)
	m.fsck("hand", "ext4")
}

// daemonOf is the daemon's process, 0 when none has the state dir.
func daemonOf(m *machine) int {
	for _, pid := range processesWith("--state-dir", string(m.state), "serve", "--child") {
		return pid
	}
	return 0
}
