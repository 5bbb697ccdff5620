package e2e

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestIdle: a mounted disk that nobody uses sends no request to the store in a minute (P10).
func TestIdle(t *testing.T) {
	t.Parallel()
	m := newMachine(t, folder(t), `upload_age = "1s"`)
	mnt := m.mountpoint()
	m.ok("mount", "d", mnt, "--size", "128M")
	must(t, writeSynced(mnt+"/file", make([]byte, 20<<20)))
	// The kernel initialises the new file system in the background, and writes what its journal holds to its place after
	// half a minute, or now; what the load leaves behind is merged.
	loop, err := os.Open(strings.TrimSpace(mustRun(t, "findmnt", "-n", "-o", "SOURCE", mnt)))
	must(t, err)
	var before float64
	settled := time.Now()
	eventually(t, "everything is uploaded and nothing is asked for a while", func() bool {
		must(t, loop.Sync())
		n := m.requests()
		if n != before || m.status("d").DirtyBytes > 0 {
			before, settled = n, time.Now()
		}
		return time.Since(settled) > 5*time.Second
	})
	idle := time.Minute
	if testing.Short() {
		idle = 5 * time.Second
	}
	must(t, loop.Close())
	for range 3 { // the kernel may write all the same
		seq := m.status("d").BarrierSeq
		before = m.requests()
		<-time.After(idle)
		if d := m.status("d"); d.BarrierSeq == seq && d.DirtyBytes == 0 {
			if after := m.requests(); after != before || before == 0 {
				t.Errorf("%.0f requests before an idle %s, %.0f after it", before, idle, after)
			}
			m.ok("umount", mnt)
			return
		}
	}
	t.Error("the disk was not idle for once")
}

// requests is how many the daemon has made of the store in its life, by its own count.
func (m *machine) requests() float64 {
	m.t.Helper()
	return m.metric("glidefs_store_requests_total")
}

// metric sums up the values of a metric of the daemon.
func (m *machine) metric(name string) (sum float64) {
	m.t.Helper()
	var d net.Dialer
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", m.state.Socket())
		},
	}}
	answer, err := c.Get("http://daemon/metrics")
	must(m.t, err)
	defer answer.Body.Close()
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if !strings.HasPrefix(lines.Text(), name+"{") && !strings.HasPrefix(lines.Text(), name+" ") {
			continue
		}
		f := strings.Fields(lines.Text())
		v, err := strconv.ParseFloat(f[len(f)-1], 64)
		must(m.t, err)
		sum += v
	}
	return sum
}

// used is what the files below a folder take on the disk, bytes.
func used(t *testing.T, dir string) int64 {
	t.Helper()
	if _, err := os.Stat(dir); err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.Fields(mustRun(t, "du", "-sB1", filepath.Clean(dir)))[0], 10, 64)
	must(t, err)
	return n
}
