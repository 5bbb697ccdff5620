package e2e

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"glidefs-appliance/appliance/api"
)

// TestLostMachine: the machine with the log and the cache is gone for good; elsewhere the disk opens as it was at some
// instant, not before the last one that status had named (P4).
func TestLostMachine(t *testing.T) {
	t.Parallel()
	for range rounds(t, 5) {
		store := folder(t)
		m := newMachine(t, store, `upload_age = "50ms"`)
		path := m.attach("d", "--size", "64M")
		h := &history{sectors: 1024}
		ended := make(chan error, 1)
		go func() { ended <- h.run(context.Background(), path) }()

		target := 1 + rand.Uint64N(uint64(2000*rounds(t, 5)))
		var shown api.Disk
		eventually(t, "the store is far enough", func() bool {
			shown = m.status("d")
			return shown.BarrierSeq >= target
		})
		m.crash()
		if err := <-ended; !daemonDied(err) {
			t.Errorf("the writer ended with: %v", err)
		}
		m.forget()
		checkLost(t, h, store, shown)
	}
}

// checkLost opens the disk on other machines: to read, which asks nobody, and to write, which must be said twice.
func checkLost(t *testing.T, h *history, store home, shown api.Disk) {
	t.Helper()
	reader, writer := newMachine(t, store), newMachine(t, store)
	path := reader.attach("d", "--read-only")
	if got := reader.status("d").BarrierSeq; got < shown.BarrierSeq {
		t.Errorf("the store is exact up to record %d, and status had shown %d", got, shown.BarrierSeq)
	}
	n := h.prefix(t, readVersions(t, path, h.sectors))
	if want := h.before(instant(t, shown.BarrierTime)); n < want {
		t.Errorf("the disk has %d operations; %d were acknowledged before the instant that status had shown", n, want)
	}
	t.Logf("of %d operations the store has %d", len(h.ops), n)

	writer.fails(exitOwned, []string{"attach", "d"}, "--takeover")
	path = writer.attach("d", "--takeover")
	if again := h.prefix(t, readVersions(t, path, h.sectors)); again != n {
		t.Errorf("the writer sees %d operations, the reader saw %d", again, n)
	}
	writer.ok("verify", "d")
}

// instant parses a time of status.
func instant(t *testing.T, s *string) time.Time {
	t.Helper()
	if s == nil {
		t.Fatal("status shows no barrier time")
	}
	at, err := time.Parse(time.RFC3339Nano, *s)
	must(t, err)
	return at
}
