package e2e

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTerminated: SIGTERM under load ends the daemon, whichever of the two processes gets it; nothing acknowledged is
// lost.
func TestTerminated(t *testing.T) {
	t.Parallel()
	m := newMachine(t, folder(t), `upload_age = "200ms"`)
	s := newStamps(2048)
	for n := range rounds(t, 6) {
		path := m.attach("d", "--size", "128M")
		s.check(t, path)
		fio := startFIO(t, path, false)
		ended := make(chan error, 1)
		go func() { ended <- s.write(context.Background(), path, false) }()
		target := s.acks.Load() + 1 + rand.Int64N(1000)
		eventually(t, "enough is written", func() bool { return s.acks.Load() >= target })
		supervisor, daemon := m.processes()
		must(t, unix.Kill([]int{supervisor, daemon}[n%2], unix.SIGTERM))
		eventually(t, "the daemon ends", m.gone)
		if err := <-ended; !daemonDied(err) {
			t.Errorf("the writers ended with: %v", err)
		}
		fio.wait()
		if left := mountsBelow(m.dir); len(left) > 0 {
			t.Errorf("a daemon that ended in order has left %s mounted", left)
		}
		path = m.attach("d")
		s.check(t, path)
		fio.verify(path)
	}
}

// TestLastDetachEndsTheDaemon, and not the one before.
func TestLastDetachEndsTheDaemon(t *testing.T) {
	t.Parallel()
	m := newMachine(t, folder(t))
	a, b := newStamps(64), newStamps(64)
	aPath, bPath := m.attach("a", "--size", "64M"), m.attach("b", "--size", "64M")
	a.fill(t, aPath)
	b.fill(t, bPath)
	daemon := m.daemon()
	m.ok("detach", "a")
	b.check(t, bPath)
	if m.daemon() != daemon {
		t.Error("another daemon runs after the first detach")
	}
	m.ok("detach", "b")
	eventually(t, "the daemon ends", m.gone)
	if left := mountsBelow(m.dir); len(left) > 0 {
		t.Errorf("%s is still mounted", left)
	}
}

// TestFullLog: the store is away, the log is full, and a writer waits without limit. What is here can be read, and status
// answers. (An fsync of the file waits behind the write: the kernel holds the lock of a FUSE inode during both.) When the store is back every write finishes; detach --force ends them with EIO instead,
// and keeps the log, whose writes are uploaded later (P9).
func TestFullLog(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"the store is back", "detach by force"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			store := folder(t)
			m := newMachine(t, store, `upload_age = "1h"`, `log_size = "8M"`, `sync_timeout = "2s"`)
			path := m.attach("d", "--size", "64M")
			s := newStamps(16 << 20 / sector)
			f := openDirect(t, path)
			must(t, s.writeOne(f, aligned(sector), 0, 1, true)) // to be read later
			must(t, f.Close())
			away, back := renamed(t, store.dir)
			away()
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			ended := make(chan error, 1)
			go func() { ended <- s.write(ctx, path, false) }()
			eventually(t, "a write waits for room", func() bool {
				d := m.status("d")
				return d.State == "log full" && d.Waiting > 0
			})
			promptStatus(t, m, "d", "running")
			must(t, inTime(t, "a read of what is here", func() error { return readFirst(path) }))

			if way == "the store is back" {
				back()
				acks := s.acks.Load()
				eventually(t, "writes go on", func() bool { return s.acks.Load() > acks+1000 })
				stop()
				must(t, <-ended)
				m.ok("detach", "d")
			} else {
				m.run("detach", "--force", "d")
				if err := <-ended; !errors.Is(err, syscall.EIO) {
					t.Errorf("the writers ended with: %v, want EIO", err)
				}
				back()
				m.ok("sync", "d")
			}
			s.check(t, newMachine(t, store).attach("d"))
		})
	}
}

// renamed takes a folder away and brings it back.
func renamed(t *testing.T, dir string) (away, back func()) {
	t.Helper()
	hidden := dir + ".away"
	t.Cleanup(func() { _ = os.Rename(hidden, dir) })
	return func() { must(t, os.Rename(dir, hidden)) }, func() { must(t, os.Rename(hidden, dir)) }
}
