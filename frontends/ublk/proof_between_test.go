package ublk

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"glidefs-appliance/frontends/frontendtest"
	"glidefs-appliance/frontends/ublk/uring"

	"golang.org/x/sys/unix"
)

// dyingEnv makes TestDying a daemon that is killed in place of its n-th control command, of "make" or "take", with
// "zero" or "copy", and the file of its disk; 0: it is not.
const dyingEnv = "GLIDEFS_UBLK_DYING"

// TestDying is no test but a process that ends between two control commands, for TestKilledBetween. With "make" it makes
// a device and removes it, with "take" it takes the one that is there back, or makes one, and leaves it.
func TestDying(t *testing.T) {
	words := strings.SplitN(os.Getenv(dyingEnv), ",", 4)
	if len(words) < 4 {
		return
	}
	n, _ := strconv.Atoi(words[0])
	if err := die(n, words[1] == "make", words[2] == "zero", words[3]); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	os.Exit(0) // without a word to the kernel
}

func die(n int, remove, zeroCopy bool, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	disk, err := frontendtest.OpenFileDisk(path, mib, 4096)
	if err != nil {
		return err
	}
	s, err := Open(Options{Owner: path, ZeroCopy: zeroCopy, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	var sent atomic.Int64
	s.control.mu.Lock()
	s.control.tamper = func(*uring.SQE, *call) {
		if sent.Add(1) == int64(n) {
			_ = unix.Kill(unix.Getpid(), unix.SIGKILL)
			select {}
		}
	}
	s.control.mu.Unlock()
	if err := s.Settle(ctx); err != nil {
		return err
	}
	dev, err := s.Add(ctx, "disk", disk, AddOptions{})
	if err != nil {
		return err
	}
	fmt.Println(dev.Path())
	if remove {
		return s.Remove(ctx, "disk", false)
	}
	return nil
}

// died runs such a process, and tells whether it was killed; path is its device's, if it came to that.
func died(t *testing.T, n int, what string, zeroCopy bool, disk string) (path string, killed bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestDying$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d,%s,%s,%s", dyingEnv, n, what, map[bool]string{true: "zero", false: "copy"}[zeroCopy], disk))
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch path = strings.TrimSpace(string(out)); {
	case err == nil:
		return path, false
	case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == unix.SIGKILL:
		return path, true
	}
	t.Fatalf("command %d of %s: %v\n%s", n, what, err, out)
	return "", false
}

// TestKilledBetween: a daemon is killed before each of the control commands that make a device and remove it, then before
// each of those that take one back. The next start puts that right: the disk is served, with what is in it, who has had
// the device open finds it again, and in the end the host has no device more than before.
func TestKilledBetween(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		disk, want := filepath.Join(stateDir(t), "disk"), make([]byte, mib)
		rand.Read(want)
		if err := os.WriteFile(disk, want, 0o600); err != nil {
			t.Fatal(err)
		}
		before := devices(t)
		for _, what := range []string{"make", "take"} {
			n := 0
			for killed := true; killed; {
				var held *os.File
				if what == "take" {
					path, _ := died(t, 0, what, zeroCopy, disk)
					held = openDirect(t, path)
				}
				n++
				_, killed = died(t, n, what, zeroCopy, disk)
				putRight(t, zeroCopy, disk, held, want)
				if now := devices(t); now != before {
					t.Fatalf("%s, killed before command %d: %d devices became %d", what, n, before, now)
				}
			}
			t.Logf("%s: killed before each of %d commands", what, n-1)
			if n-1 < 4 {
				t.Errorf("%s: only %d commands were sent", what, n-1)
			}
		}
	})
}

// putRight is the start after it, and an end in order.
func putRight(t *testing.T, zeroCopy bool, path string, held *os.File, want []byte) {
	t.Helper()
	disk, err := frontendtest.OpenFileDisk(path, mib, 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	s := openOwned(t, zeroCopy, path)
	if err := s.Settle(soon(t)); err != nil {
		t.Fatal(err)
	}
	dev, err := s.Add(soon(t), "disk", disk, AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	files := []*os.File{openDirect(t, dev.Path())}
	if held != nil {
		files = append(files, held)
	}
	got := alignedBytes(t, len(want))
	for i, f := range files {
		clear(got)
		if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("reader %d of %d: %v, or other bytes", i+1, len(files), err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if n, err := s.Sweep([]string{"disk"}); n > 0 || err != nil {
		t.Errorf("%d devices more were left, %v", n, err)
	}
	if err := s.Remove(soon(t), "disk", false); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestMarks: a device's number is marked as ours before the kernel shows the device, and no longer when the kernel may give
// it to somebody else's, whatever the daemon dies of.
func TestMarks(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		owner := fmt.Sprintf("%s %d", t.Name(), os.Getpid())
		var starts, ends atomic.Int64
		look := func(_ *uring.SQE, cl *call) {
			_, err := os.Stat(markPath(cl.dev))
			switch cl.op {
			case cmdStartDev:
				starts.Add(1)
				if err != nil {
					t.Errorf("device %d starts without its mark: %v", cl.dev, err)
				}
			case cmdDelDev, cmdDelDevAsync:
				ends.Add(1)
				if !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("device %d is about to be deleted, with its mark: %v", cl.dev, err)
				}
			}
		}
		open := func() *Server {
			s := openOwned(t, zeroCopy, owner)
			s.control.mu.Lock()
			defer s.control.mu.Unlock()
			s.control.tamper = look
			return s
		}
		add := func(s *Server) {
			if _, err := s.Add(soon(t), "disk", frontendtest.NewMemDisk(mib, 4096), AddOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		s := open()
		for _, force := range []bool{false, true} {
			add(s)
			if err := s.Remove(soon(t), "disk", force); err != nil {
				t.Error(err)
			}
		}
		add(s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open()
		if err := s.Settle(soon(t)); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Sweep(nil); n != 1 || err != nil {
			t.Errorf("swept %d devices, %v", n, err)
		}
		if starts.Load() != 3 || ends.Load() != 3 {
			t.Errorf("%d starts, %d ends", starts.Load(), ends.Load())
		}
	})
}
