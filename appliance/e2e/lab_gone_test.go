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

// TestLabGone: when the state dir is deleted below a daemon, it takes the block devices from those who write to them,
// uploads what was acknowledged, and ends. Another host needs no takeover.
func TestLabGone(t *testing.T) {
	eachBlockWay(t, func(t *testing.T, w way) {
		store := folder(t)
		m := w.machine(t, store, `upload_age = "1h"`)
		path, daemon := m.attach("d", "--size", "64M"), m.daemon()
		s := newStamps(1024)
		ended := make(chan error, 1)
		go func() { ended <- s.write(context.Background(), path, false) }()
		eventually(t, "enough is written", func() bool { return s.acks.Load() >= 500 })
		eventually(t, "the state dir is deleted", func() bool { return os.RemoveAll(string(m.state)) == nil }) // it makes files
		if err := <-ended; !errors.Is(err, syscall.EIO) {
			t.Errorf("the writers ended with: %v", err)
		}
		eventually(t, "the daemon ends", func() bool { return unix.Kill(daemon, 0) == unix.ESRCH })
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is there without a daemon", path)
		}
		other := w.machine(t, store)
		s.check(t, other.attach("d"))
		other.ok("detach", "d")
	})
}
