package e2e

import (
	"context"
	"math/rand/v2"
	"os"
	"testing"

	"glidefs-appliance/appliance/client"

	"golang.org/x/sys/unix"
)

// TestKillMinusNine: everything dies at a random moment under load, again and again, and nothing acknowledged is lost
// (P3). Uploads and merges go on all the while. In the end the store has the same.
func TestKillMinusNine(t *testing.T) {
	t.Parallel()
	for name, sync := range map[string]bool{"plain": false, "fsync": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := folder(t)
			m := newMachine(t, store, `upload_age = "200ms"`)
			s := newStamps(2048)
			for n := range rounds(t, 10) {
				t.Logf("round %d", n)
				killRound(t, m, s, sync)
			}
			m.ok("detach", "d")
			m.ok("verify", "d")
			s.check(t, newMachine(t, store).attach("d"))
		})
	}
}

func killRound(t *testing.T, m *machine, s *stamps, sync bool) {
	t.Helper()
	path := m.attach("d", "--size", "128M")
	fio := startFIO(t, path, sync)
	target := s.acks.Load() + 1 + rand.Int64N(2000)
	if sync {
		target = s.acks.Load() + 1 + rand.Int64N(200)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.write(context.Background(), path, sync) }()
	eventually(t, "enough is written", func() bool { return s.acks.Load() >= target })
	m.crash()
	if err := <-ended; !daemonDied(err) {
		t.Errorf("the writers ended with: %v", err)
	}
	fio.wait()
	if rand.IntN(2) == 0 {
		m.crashWhileOpening("d")
	}
	path = m.attach("d")
	s.check(t, path)
	fio.verify(path)
}

// TestDaemonIsStartedAgain: when only the daemon dies its supervisor starts another, which has the disk and all of it;
// after the fifth time within a minute it gives up, and users get an error rather than wait.
func TestDaemonIsStartedAgain(t *testing.T) {
	t.Parallel()
	m := newMachine(t, folder(t), `upload_age = "1h"`)
	path := m.attach("d", "--size", "64M")
	s := newStamps(1024)
	const restarts = 5
	for range restarts {
		ended := make(chan error, 1)
		go func() { ended <- s.write(context.Background(), path, false) }()
		target := s.acks.Load() + 100
		eventually(t, "enough is written", func() bool { return s.acks.Load() >= target })
		old := m.daemon()
		must(t, unix.Kill(old, unix.SIGKILL))
		if err := <-ended; !daemonDied(err) {
			t.Errorf("the writers ended with: %v", err)
		}
		eventually(t, "the disk is there again", func() bool {
			_, pid := m.processes()
			_, err := os.Stat(path)
			return pid != 0 && pid != old && err == nil
		})
		s.check(t, path)
	}
	must(t, unix.Kill(m.daemon(), unix.SIGKILL))
	eventually(t, "the supervisor gives up", m.gone)
	if _, err := os.Stat(path); err == nil {
		t.Error("the file is there without a daemon")
	}
	if d := m.status("d"); d.Daemon != client.Stopped {
		t.Errorf("daemon %s, want %s", d.Daemon, client.Stopped)
	}
	s.check(t, m.attach("d"))
}
