package fuse

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"glidefs-appliance/frontends/frontendtest"
)

// lines collects what is logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) has(part string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.buf.String(), part)
}

// TestLostConnection: when the connection ends under a mount that is in use the log says so, and the exports can be taken
// away although the kernel never reports the closes.
func TestLostConnection(t *testing.T) {
	var said lines
	s := mount(t, Options{Logger: slog.New(slog.NewTextHandler(&said, nil))})
	f := openFile(t, add(t, s, "a", frontendtest.NewMemDisk(mib, 4096)), os.O_RDWR)
	if err := unix.Unmount(s.Dir(), unix.MNT_FORCE); !errors.Is(err, unix.EBUSY) { // it aborts the connection first
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, 512), 0); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("read: %v", err)
	}
	eventually(t, "it is logged", func() bool { return said.has("nobody here unmounted it") })
	remove(t, s, "a")
}

// TestUnmountIsNoLoss: an unmount of ours is not logged as a loss.
func TestUnmountIsNoLoss(t *testing.T) {
	var said lines
	s, err := Mount(t.TempDir(), Options{Logger: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(); err != nil {
		t.Fatal(err)
	}
	s.Wait()
	if said.has("nobody here unmounted it") {
		t.Error("it is")
	}
}
