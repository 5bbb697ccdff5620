package ublk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"glidefs-appliance/backend/volume"
	"glidefs-appliance/backend/wlog"

	"golang.org/x/sys/unix"
)

// daemonEnv makes TestDaemon a daemon, to be killed: the name of its kind, "zero" or "copy", its state dir.
const daemonEnv = "GLIDEFS_UBLK_DAEMON"

// kind of daemon: how many disks of which size, and over what.
type kind struct {
	disks  int
	size   int64
	tuning volume.Tuning
}

// The logs of both have two of the smallest segments for each disk.
var kinds = map[string]kind{
	// one uploads all the time, and uses its segments over and over.
	"tight": {disks: 1, size: 8 << 20, tuning: volume.Tuning{
		SegmentBytes: 128 << 10, BatchBytes: 64 << 10, InlineBytes: 1, UploadAge: 10 * time.Millisecond, ReadTimeout: time.Minute}},
	"many": {disks: manyDisks(), size: 16 << 20, tuning: volume.Tuning{SegmentBytes: 512 << 10, UploadAge: time.Hour}},
}

// TestDaemon is no test but a process that serves disks, for the tests that kill it.
func TestDaemon(t *testing.T) {
	words := strings.SplitN(os.Getenv(daemonEnv), ",", 3)
	if len(words) < 3 {
		return
	}
	if err := serveDisks(kinds[words[0]], words[1] == "zero", words[2]); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serving is such a process.
type serving struct {
	s      *Server
	disks  []*volume.Volume
	paths  []string
	before int64            // KiB of memory without devices
	took   [3]time.Duration // until devices had settled, disks were open, devices were made or taken back
}

// serveDisks says where the disks are, does what stdin asks for, and ends in order with it.
func serveDisks(k kind, zeroCopy bool, state string) error {
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 16, Max: 1 << 16}); err != nil {
		return err
	}
	s, err := Open(Options{Owner: state, ZeroCopy: zeroCopy, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	p := &serving{s: s, disks: make([]*volume.Volume, k.disks), paths: make([]string, k.disks)}
	if err := p.begin(k, state); err != nil {
		return err
	}
	fmt.Println("ready", strings.Join(p.paths, " "))
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		p.command(in.Text())
	}
	return p.end()
}

func (p *serving) begin(k kind, state string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	lap := stopwatch()
	if err := p.s.Settle(ctx); err != nil {
		return err
	}
	p.took[0] = lap()
	h, err := diskHost(state)
	if err != nil {
		return err
	}
	h.Budget, h.Tuning = wlog.NewBudget(0), k.tuning
	for i := range p.disks {
		if p.disks[i], err = openOrCreate(ctx, h, fmt.Sprint("disk", i), k.size); err != nil {
			return err
		}
	}
	p.took[1], p.before = lap(), residentKiB()
	for i, v := range p.disks {
		dev, err := p.s.Add(ctx, v.Name(), v, AddOptions{})
		if err != nil {
			return err
		}
		p.paths[i] = dev.Path()
	}
	p.took[2] = lap()
	return nil
}

func openOrCreate(ctx context.Context, h *volume.Host, name string, size int64) (*volume.Volume, error) {
	v, err := volume.Open(ctx, h, name, volume.OpenOptions{})
	if errors.Is(err, volume.ErrNotFound) {
		v, err = volume.Open(ctx, h, name, volume.OpenOptions{Create: size})
	}
	return v, err
}

// command does what a line of stdin says and answers with a line.
func (p *serving) command(line string) {
	switch what, name, _ := strings.Cut(line, " "); what {
	case "times":
		fmt.Println(p.took[0], p.took[1], p.took[2])
	case "memory": // KiB since before the devices were made
		fmt.Println(residentKiB() - p.before)
	case "buffers": // KiB, and requests that waited for one
		fmt.Println(len(p.s.workers)*p.s.o.Buffers*bufferBytes>>10, p.s.Stats().BufferWait)
	case "remove":
		began := time.Now()
		err := p.s.Remove(context.Background(), name, false)
		fmt.Println(time.Since(began).Microseconds(), err)
	}
}

func (p *serving) end() error {
	var wg sync.WaitGroup
	errs := make([]error, len(p.disks))
	for i, v := range p.disks {
		wg.Go(func() {
			if err := p.s.Remove(context.Background(), v.Name(), true); !errors.Is(err, ErrNotFound) {
				errs[i] = err
			}
		})
	}
	wg.Wait()
	for _, v := range p.disks {
		v.Kill(volume.ErrClosed)
	}
	return errors.Join(errs...)
}

// stopwatch returns a function that tells the time since it was called last.
func stopwatch() func() time.Duration {
	last := time.Now()
	return func() time.Duration {
		took := time.Since(last)
		last = last.Add(took)
		return took
	}
}

// startKind starts a daemon and waits until its disks are there; path is where, with spaces between.
func startKind(t *testing.T, name, state string, zeroCopy bool) *daemon {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestDaemon$")
	cmd.Env = append(os.Environ(), daemonEnv+"="+name+","+map[bool]string{true: "zero", false: "copy"}[zeroCopy]+","+state)
	cmd.Stderr = t.Output()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := &daemon{cmd: cmd, stdin: stdin, out: bufio.NewScanner(stdout)}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // of one that a failed test left
	if d.out.Scan(); !strings.HasPrefix(d.out.Text(), "ready ") {
		t.Fatalf("the daemon says %q", d.out.Text())
	}
	d.path = strings.TrimPrefix(d.out.Text(), "ready ")
	return d
}

// ask a daemon of a kind; its answer's words go to answer.
func (d *daemon) ask(t *testing.T, line string, answer ...any) {
	t.Helper()
	if _, err := fmt.Fprintln(d.stdin.(io.Writer), line); err != nil {
		t.Fatal(err)
	}
	if !d.out.Scan() {
		t.Fatalf("no answer to %q", line)
	}
	if _, err := fmt.Sscan(d.out.Text(), answer...); err != nil {
		t.Fatalf("%q: %v", d.out.Text(), err)
	}
}

// residentKiB is the memory of this process.
func residentKiB() int64 {
	var size, pages int64
	b, _ := os.ReadFile("/proc/self/statm")
	_, _ = fmt.Sscan(string(b), &size, &pages)
	return pages * int64(os.Getpagesize()) >> 10
}
