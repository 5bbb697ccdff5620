package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/client"
	"glidefs-appliance/appliance/statedir"
)

// TestMemory: what idle attached disks add to the resident memory of the real daemon, each.
func TestMemory(t *testing.T) {
	n := choose(20, 1000)
	dir, err := os.MkdirTemp("", "bench-") // short: a socket is in it
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d := startDaemon(t, dir)
	before := d.settled(t)
	d.attach(t, n)
	after := d.settled(t)
	each := (after - before) / float64(n)
	report(row{What: fmt.Sprintf("resident memory of %d idle disks, each", n), Unit: "MB", sides: sides{after, before, each},
		RefName: "no disk", Must: 0.5, AtMost: true})
}

// daemon is `glidefs-appliance serve`.
type daemon struct {
	state statedir.Dir
	cmd   *exec.Cmd
	pid   int
}

func startDaemon(t testing.TB, dir string) *daemon {
	t.Helper()
	program := filepath.Join(dir, "glidefs-appliance")
	build := exec.Command("go", "build", "-trimpath", "-o", program, "../../cli")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", build.Args, err, out)
	}
	config := filepath.Join(dir, "config.toml")
	must(t, os.WriteFile(config, []byte(fmt.Sprintf("cache_dir = %q\n", filepath.Join(dir, "cache"))), 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "store"), 0o700))
	d := &daemon{state: statedir.Dir(filepath.Join(dir, "state"))}
	d.cmd = exec.Command(program, "--config", config, "--state-dir", string(d.state), "--store", "file://"+filepath.Join(dir, "store"), "serve")
	d.cmd.Env = append(os.Environ(), "GLIDEFS_STORE=", "GLIDEFS_STATE_DIR=", "GLIDEFS_CONFIG=")
	must(t, d.cmd.Start())
	t.Cleanup(func() {
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
		_ = d.cmd.Wait()
	})
	c := d.dial(t)
	defer c.Close()
	d.pid = c.Daemon.PID
	return d
}

// dial waits for the daemon to come up.
func (d *daemon) dial(t testing.TB) *client.Client {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := client.Dial(context.Background(), d.state, 10*time.Second)
		if err == nil {
			return c
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// attach attaches n new disks through FUSE, several at a time.
func (d *daemon) attach(t testing.TB, n int) {
	t.Helper()
	const clients = 8
	var wg sync.WaitGroup
	for w := range clients {
		c := d.dial(t)
		wg.Go(func() {
			defer c.Close()
			for i := w; i < n; i += clients {
				_, err := c.Attach(context.Background(), fmt.Sprintf("disk-%d", i), api.Attach{Create: true, Size: 1 << 30, Frontend: "fuse"})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// settled is the resident memory, MB, once it falls no more: the runtime gives back what it does not need by and by.
func (d *daemon) settled(t testing.TB) float64 {
	t.Helper()
	const step, quiet = time.Second, 10
	low, since := d.resident(t), 0
	for since < choose(1, quiet) {
		time.Sleep(step)
		since++
		if now := d.resident(t); now < low*0.99 {
			low, since = now, 0
		}
	}
	return low
}

func (d *daemon) resident(t testing.TB) float64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kib float64
	_, err = fmt.Sscan(rest, &kib)
	must(t, err)
	return kib * 1024 / 1e6
}
