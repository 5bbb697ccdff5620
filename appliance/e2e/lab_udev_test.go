//go:build lab

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// held is how long the store takes to answer the disk's first read.
const held = 5 * time.Second

const ruleFile = "99-glidefs-ublk.rules"

// TestLabUdev: the rule sets what it says, only where it isn't so, and of no other's devices; installed, or brought by a daemon
// that doesn't find it. With a scheduler to take away and a store that holds the disk's first read,
// neither udev nor I/O waits longer than for that read; other devices don't wait at all. Needs a guest with systemd and
// one CPU: a device with one queue gets mq-deadline.
func TestLabUdev(t *testing.T) {
	w := ways(t)[0]
	installed(t)
	mustRun(t, "systemctl", "stop", "glidefs-appliance")
	mustRun(t, "modprobe", "mq-deadline")
	store, c := counted(t)
	m := w.machine(t, store, `upload_age = "1h"`, `read_timeout = "60s"`)
	s := newStamps(2048)
	s.fill(t, m.attach("d", "--size", "64M"))
	m.ok("detach", "d")
	eventually(t, "the daemon ends", m.gone)
	must(t, os.RemoveAll(filepath.Join(string(m.state), "cache")))

	rule(t, m, w)
	eventually(t, "the daemon ends", m.gone)
	must(t, os.Remove("/usr/lib/udev/rules.d/"+ruleFile)) // the next daemon brings its own
	other := newStamps(64)
	otherPath := m.attach("other", "--size", "64M")
	other.fill(t, otherPath)
	mustRun(t, "udevadm", "settle")
	if _, err := os.Stat("/run/udev/rules.d/" + ruleFile); err != nil {
		t.Errorf("the daemon found no rule and brought none: %v", err)
	}
	holding, free := c.holdFirst("/packs/")
	began := time.Now()
	attach := m.start("attach", "d")
	<-holding
	asked := time.Now()
	for range 20 { // the others go on
		other.version.Add(1)
		must(t, inTime(t, "a write to another disk", func() error {
			f := openDirect(t, otherPath)
			defer f.Close()
			return other.writeOne(f, aligned(sector), 0, 1, true)
		}))
	}
	t.Logf("the store was asked after %s; 20 synced writes to another disk took %s meanwhile", asked.Sub(began), time.Since(asked))
	<-time.After(held - time.Since(asked))
	free()
	freed := time.Now()
	r := m.finish(attach)
	m.want(r, []string{"attach"}, 0)
	mustRun(t, "udevadm", "settle", "-t", "60")
	t.Logf("attach took %s; udev was done %s after the store had answered", r.took, time.Since(freed))
	path := strings.TrimSpace(r.stdout)
	s.check(t, path)
	attributes(t, path)
	m.ok("detach", "d")
	m.ok("detach", "other")
}

// rule compares a device before and after udev has seen it.
func rule(t *testing.T, m *machine, w way) {
	t.Helper()
	mustRun(t, "udevadm", "settle")
	mustRun(t, "udevadm", "control", "--stop-exec-queue")
	path := m.attach("fresh", "--size", "64M")
	w.check(m, "fresh")
	t.Logf("before udev: %v", queue(t, path))
	if !strings.Contains(queue(t, path)["scheduler"], "[mq-deadline]") {
		t.Errorf("the kernel gave %v; the test wants a scheduler to take away", queue(t, path))
	}
	mustRun(t, "udevadm", "control", "--start-exec-queue")
	mustRun(t, "udevadm", "settle", "-t", "60")
	attributes(t, path)
	notOurs(t, path)
	m.ok("detach", "fresh")
}

// notOurs makes the device somebody else's for a moment, as far as udev can tell: it is left alone then.
func notOurs(t *testing.T, path string) {
	t.Helper()
	name := filepath.Base(path)
	mark := "/run/glidefs-appliance/ublk/" + name
	must(t, os.Remove(mark))
	must(t, os.WriteFile("/sys/class/block/"+name+"/queue/scheduler", []byte("mq-deadline"), 0o644))
	added := func() {
		mustRun(t, "udevadm", "trigger", "--action=add", "/sys/class/block/"+name)
		mustRun(t, "udevadm", "settle", "-t", "60")
	}
	if added(); !strings.Contains(queue(t, path)["scheduler"], "[mq-deadline]") {
		t.Errorf("the rule has touched another's device: %v", queue(t, path))
	}
	must(t, os.WriteFile(mark, nil, 0o644))
	added()
	attributes(t, path)
}

func attributes(t *testing.T, path string) {
	t.Helper()
	q := queue(t, path)
	t.Logf("after udev: %v", q)
	if !strings.Contains(q["scheduler"], "[none]") || q["wbt_lat_usec"] != "0" || q["add_random"] != "0" || q["read_ahead_kb"] != "1024" {
		t.Errorf("the rule has not been obeyed: %v", q)
	}
	if watched(t, path) {
		t.Error("udev watches the device: each close after a write costs a scan of it")
	}
}

// watched tells whether udev reacts to a close of a block device after a write.
func watched(t *testing.T, path string) bool {
	t.Helper()
	const dir = "/run/udev/watch"
	all, err := os.ReadDir(dir)
	if err != nil || len(all) == 0 {
		t.Fatalf("udev watches nothing at all: %v", err)
	}
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	_, err = os.Lstat(fmt.Sprintf("%s/b%d:%d", dir, unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	return err == nil
}

// queue is what the kernel says of a block device's queue.
func queue(t *testing.T, path string) map[string]string {
	t.Helper()
	q := map[string]string{}
	for _, name := range []string{"scheduler", "wbt_lat_usec", "add_random", "read_ahead_kb", "nr_requests"} {
		b, err := os.ReadFile("/sys/class/block/" + filepath.Base(path) + "/queue/" + name)
		must(t, err)
		q[name] = strings.TrimSpace(string(b))
	}
	return q
}

// holdFirst holds the first GET of a key with that in it, and tells of it, until it is freed.
func (c *counting) holdFirst(key string) (holding <-chan struct{}, free func()) {
	ctx, cancel := context.WithCancel(context.Background())
	came := make(chan struct{})
	var once sync.Once
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold = func(r *http.Request) {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, key) {
			return
		}
		once.Do(func() {
			close(came)
			<-ctx.Done()
		})
	}
	return came, cancel
}
