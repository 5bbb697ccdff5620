package e2e

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"glidefs-appliance/backend/store/storetest"
)

// Exit codes of the commands.
const (
	exitFailed = 1
	exitUsage  = 2
	exitNotAll = 3
	exitOwned  = 4
)

// TestTwoWriters: a second writer is refused; one that takes over fences the first, which can never overwrite (P5).
func TestTwoWriters(t *testing.T) {
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		testTwoWriters(t, folder(t))
	})
	t.Run("versitygw", func(t *testing.T) { testTwoWriters(t, bucket(storetest.StartVersitygw(t))) })
}

func testTwoWriters(t *testing.T, store home) {
	const sectors = 512
	first, second := newMachine(t, store, `upload_age = "1h"`), newMachine(t, store)
	path := first.attach("d", "--size", "64M")
	mine, theirs := newStamps(sectors), newStamps(sectors)
	mine.fill(t, path)
	first.ok("sync", "d")
	barrier := instant(t, first.status("d").BarrierTime)

	hostname, err := os.Hostname()
	must(t, err)
	second.fails(exitOwned, []string{"attach", "d"}, "last written by "+hostname, "attached 20", "--takeover", "--read-only",
		"exact up to "+barrier.Truncate(time.Second).Format(time.RFC3339))
	second.fails(exitOwned, []string{"mount", "d", second.mountpoint()}, "--takeover")

	mine.version.Store(1000)
	mine.fill(t, path) // only in the log of the first
	theirPath := second.attach("d", "--takeover")
	theirs.version.Store(2000)
	theirs.fill(t, theirPath)
	second.ok("sync", "d")

	testFenced(t, first, path)
	theirs.check(t, newMachine(t, store).attach("d", "--read-only"))

	// What only the first had is kept until somebody settles it.
	first.fails(exitFailed, []string{"detach", "--force", "--no-sync", "nosuch"}, "not attached")
	first.run("detach", "--force", "d")
	first.fails(exitOwned, []string{"attach", "d"}, hostname, "salvage", "abandon")
	first.ok("salvage", "d", "rescued")
	mine.check(t, first.attach("rescued"))
	first.fails(exitUsage, []string{"abandon", "d"}, "--yes")
	first.ok("abandon", "d", "--yes")
	second.ok("detach", "d")
	theirs.check(t, first.attach("d"))
}

// testFenced: the first writer learns of the other at its next upload, and from then on every operation fails.
func testFenced(t *testing.T, m *machine, path string) {
	t.Helper()
	f := openDirect(t, path)
	defer f.Close()
	m.fails(exitOwned, []string{"sync", "d"}, "taken over")
	if d := m.status("d"); d.State != "fenced" || d.Reason == "" || d.DirtyBytes == 0 {
		t.Errorf("status shows state %q, reason %q, %d bytes dirty", d.State, d.Reason, d.DirtyBytes)
	}
	p := aligned(sector)
	_, read := f.ReadAt(p, 0)
	_, write := f.WriteAt(p, 0)
	for op, err := range map[string]error{"read": read, "write": write, "flush": f.Sync()} {
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("%s of a fenced disk: %v, want EIO", op, err)
		}
	}
}
