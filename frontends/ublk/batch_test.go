package ublk

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/frontendtest"
)

// batches is a disk whose first commit waits; it counts the writes of each.
type batches struct {
	*takesTurns
	begun   chan struct{}
	resume  chan struct{}
	once    sync.Once
	commits []int
}

func (d *batches) Commit(writes []frontends.Write) error {
	d.once.Do(func() {
		close(d.begun)
		<-d.resume
	})
	d.mu.Lock()
	d.commits = append(d.commits, len(writes))
	d.mu.Unlock()
	return d.takesTurns.Commit(writes)
}

// TestBatch: short writes that come while a worker is busy are committed together, which is one append to a log. (Of long ones
// those are whose bytes are in place.)
func TestBatch(t *testing.T) { eachMode(t, batch) }

func batch(t *testing.T, zeroCopy bool) {
	const size = 4096
	const n = 16
	disk := &batches{takesTurns: &takesTurns{MemDisk: frontendtest.NewMemDisk(2*mib, 4096)}, begun: make(chan struct{}), resume: make(chan struct{})}
	disk.openFiles(t)
	s, err := Open(Options{Owner: t.Name() + strconv.Itoa(os.Getpid()), ZeroCopy: zeroCopy, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	dev := serve(t, s, "disk", disk)
	f := openDirect(t, dev.Path())
	defer f.Close()
	var writers sync.WaitGroup
	write := func(i int) {
		p := alignedBytes(t, size)
		writers.Go(func() {
			if _, err := f.WriteAt(p, int64(i*size)); err != nil {
				t.Error(err)
			}
		})
	}
	write(0)
	<-disk.begun
	for i := range n {
		write(1 + i)
	}
	eventually(t, "all are with the device", func() bool { return inFlight(t, dev) == n+1 })
	close(disk.resume)
	writers.Wait()
	if len(disk.commits) > 1+n/4 {
		t.Errorf("commits of %v writes", disk.commits)
	}
}

// inFlight counts the writes that a device has got and not answered.
func inFlight(t *testing.T, d *Device) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/sys/class/block/ublkb%d/inflight", d.ID()))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestQueues: a device has a queue for each worker, and so two at least where there are two CPUs.
func TestQueues(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		dev := serve(t, openServer(t, zeroCopy), "disk", frontendtest.NewMemDisk(mib, 4096))
		queues, err := filepath.Glob(fmt.Sprintf("/sys/class/block/ublkb%d/mq/*", dev.ID()))
		if err != nil || len(queues) != min(runtime.NumCPU(), maxWorkers) {
			t.Errorf("%d CPUs and queues %v, %v", runtime.NumCPU(), queues, err)
		}
	})
}

// TestTestedOnce: a self-test that was passed is not made again on the same kernel; that of another kernel says nothing.
func TestTestedOnce(t *testing.T) {
	for mode, zeroCopy := range modes(t) {
		other := fmt.Sprintf("0.1 zero=%t ok\n", zeroCopy)
		if err := os.MkdirAll(filepath.Dir(testedPath), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(testedPath, []byte(other), 0o644); err != nil {
			t.Fatal(err)
		}
		want := other + fmt.Sprintf("%s zero=%t ok\n", release(), zeroCopy)
		for range 2 {
			if err := Tested(zeroCopy); err != nil {
				t.Errorf("%s: %v", mode, err)
			}
			if got, err := os.ReadFile(testedPath); string(got) != want {
				t.Errorf("%s: %q, %v, want %q", mode, got, err, want)
			}
		}
	}
}
