package ublk

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"glidefs-appliance/backend/cache"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store/dir"
	"glidefs-appliance/backend/vfs"
	"glidefs-appliance/backend/volume"
	"glidefs-appliance/backend/wlog"
)

// childEnv makes the test binary a daemon of one disk, to be killed: its state dir, and "zero" or "copy".
const childEnv = "GLIDEFS_UBLK_CHILD"

func TestMain(m *testing.M) {
	if v := os.Getenv(childEnv); v != "" {
		state, mode, _ := strings.Cut(v, ",")
		if err := child(state, mode == "zero"); err != nil {
			fmt.Printf("error %q\n", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const childDisk = 256 << 20

// child serves a disk of the engine until its stdin ends, and says where.
func child(state string, zeroCopy bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	s, err := Open(Options{Owner: state, ZeroCopy: zeroCopy, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	if err := s.Settle(ctx); err != nil {
		return err
	}
	h, err := diskHost(state)
	if err != nil {
		return err
	}
	v, err := volume.Open(ctx, h, "disk", volume.OpenOptions{})
	if err != nil {
		if v, err = volume.Open(ctx, h, "disk", volume.OpenOptions{Create: childDisk}); err != nil {
			return err
		}
	}
	dev, err := s.Add(ctx, "disk", v, AddOptions{})
	if err != nil {
		return err
	}
	fmt.Println("ready", dev.Path())
	_, _ = io.Copy(io.Discard, os.Stdin)
	ctx = context.Background() // the parent has the patience
	if err := s.Remove(ctx, "disk", true); err != nil {
		return err
	}
	fmt.Printf("stats %+v\n", s.Stats())
	return errors.Join(v.Sync(ctx, nil), v.Close(ctx))
}

// diskHost is an engine whose store is a folder, so that the next process finds it.
func diskHost(state string) (*volume.Host, error) {
	fs := vfs.OS()
	for _, d := range []string{"logs", "cache"} {
		if err := fs.MkdirAll(filepath.Join(state, d)); err != nil {
			return nil, err
		}
	}
	st, err := dir.Open(filepath.Join(state, "store"), true)
	if err != nil {
		return nil, err
	}
	c, err := cache.Open(cache.Options{FS: fs, Dir: filepath.Join(state, "cache"), Size: 256 << 20})
	if err != nil {
		return nil, err
	}
	return &volume.Host{
		FS: fs, Logs: filepath.Join(state, "logs"), BootID: "boot", Store: st, Cache: c,
		Owner: manifest.Owner{State: [16]byte{1}, Host: "test"}, Pages: manifest.NewPages(st, 256),
		Budget: wlog.NewBudget(1 << 30), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}, nil
}

// daemon is a running child.
type daemon struct {
	cmd   *exec.Cmd
	stdin io.Closer
	out   *bufio.Scanner
	path  string
}

func startDaemon(t *testing.T, state string, zeroCopy bool) *daemon {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+state+","+map[bool]string{true: "zero", false: "copy"}[zeroCopy])
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
	if !d.out.Scan() {
		t.Fatal("the daemon says nothing")
	}
	word, path, _ := strings.Cut(d.out.Text(), " ")
	if word != "ready" {
		t.Fatal(d.out.Text())
	}
	d.path = path
	return d
}

func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

// stop ends the daemon in order and returns its last words.
func (d *daemon) stop(t *testing.T) string {
	t.Helper()
	d.stdin.Close()
	d.out.Scan()
	if err := d.cmd.Wait(); err != nil {
		t.Error(err)
	}
	return d.out.Text()
}

// TestKill: the process is killed again and again under fio, which sees no error and finds what it wrote.
func TestKill(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		state := stateDir(t)
		d := startDaemon(t, state, zeroCopy)
		path := d.path
		fio := exec.Command("fio", "--name=verify", "--filename="+path, "--direct=1", "--ioengine=libaio", "--iodepth=16", "--rw=randwrite",
			"--bsrange=4k-128k", "--size=64m", "--io_size=128m", "--verify=crc32c", "--verify_backlog=256", "--verify_fatal=1", "--fsync=64",
			"--allow_file_create=0", "--randrepeat=0")
		var out bytes.Buffer
		fio.Stdout, fio.Stderr = &out, &out
		if err := fio.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { abandon(t, fio, state) })
		for range 3 {
			awaitRequests(t, path, 150)
			d.kill()
			if d = startDaemon(t, state, zeroCopy); d.path != path {
				t.Fatalf("%s came back as %s", path, d.path)
			}
		}
		if err := fio.Wait(); err != nil {
			t.Errorf("fio: %v\n%s", err, &out)
		}
		t.Log(d.stop(t))
	})
}

// abandon takes away what a test that failed has left: the tests after it want a host without devices.
func abandon(t *testing.T, fio *exec.Cmd, owner string) {
	if !t.Failed() {
		return
	}
	_ = fio.Process.Kill()
	s := openOwned(t, false, owner)
	n, err := s.Sweep(nil)
	t.Logf("%d devices taken away, %v", n, err)
}

// awaitRequests waits until a block device has answered n requests more: its users are not done yet.
func awaitRequests(t *testing.T, path string, n uint64) {
	t.Helper()
	first := answered(t, path)
	for deadline := time.Now().Add(2 * time.Minute); answered(t, path) < first+n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s answers nothing any more", path)
		}
	}
}

// answered counts the reads and writes that a block device has done.
func answered(t *testing.T, path string) uint64 {
	t.Helper()
	reads, writes := doneBy(t, path)
	return reads + writes
}

func doneBy(t *testing.T, path string) (reads, writes uint64) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(path), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	var n [5]uint64 // reads, merged, sectors, ms, writes
	if _, err := fmt.Sscan(string(b), &n[0], &n[1], &n[2], &n[3], &n[4]); err != nil {
		t.Fatal(err)
	}
	return n[0], n[4]
}
