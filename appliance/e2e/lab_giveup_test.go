//go:build lab

package e2e

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLabGivesUp: when the daemon has died too often, its supervisor takes the block devices away, so that who writes to
// one gets EIO and does not wait for ever (P9). Nothing that was acknowledged is lost.
func TestLabGivesUp(t *testing.T) {
	eachBlockWay(t, func(t *testing.T, w way) {
		m := w.machine(t, folder(t), `upload_age = "1h"`)
		path := m.attach("d", "--size", "64M")
		s := newStamps(1024)
		ended := make(chan error, 1)
		go func() { ended <- s.write(context.Background(), path, false) }()
		const restarts = 5
		for range restarts {
			target := s.acks.Load() + 50
			eventually(t, "enough is written", func() bool { return s.acks.Load() >= target })
			m.killDaemon()
		}
		must(t, unix.Kill(m.daemon(), unix.SIGKILL))
		eventually(t, "the supervisor gives up", m.gone)
		if err := <-ended; !errors.Is(err, syscall.EIO) {
			t.Errorf("the writers ended with: %v", err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is there without a daemon", path)
		}
		s.check(t, m.attach("d"))
		m.ok("detach", "d")
	})
}
