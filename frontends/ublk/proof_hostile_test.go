package ublk

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"glidefs-appliance/frontends/frontendtest"
	"glidefs-appliance/frontends/ublk/uring"

	"golang.org/x/sys/unix"
)

// kernelSays is a server whose control commands are answered by a function in the kernel's place, with 0 or -errno. It
// has no workers.
func kernelSays(t *testing.T, answer func(*call) int32) *Server {
	t.Helper()
	w, err := uring.NewWaker()
	if err != nil {
		t.Fatal(err)
	}
	c := &control{fd: -1, lead: &flights{waker: w}, log: slog.New(slog.DiscardHandler)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for c.answerAll(answer) {
			time.Sleep(time.Millisecond)
		}
	}()
	t.Cleanup(func() {
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
		<-ended
		w.Close()
	})
	s := &Server{o: Options{Log: slog.New(slog.NewTextHandler(io.Discard, nil))}, control: c, ctx: t.Context()}
	s.mu.devices, s.mu.cookies = map[string]*Device{}, map[uint64]string{}
	return s
}

func (c *control) answerAll(answer func(*call) int32) (open bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cl := range c.queue {
		cl.res = answer(cl)
		close(cl.done)
	}
	c.queue = nil
	return !c.closed
}

// TestRefused: what the kernel may say to a new device is an error that says what to do, the disk's name is free again,
// and a device that came half way is taken away.
func TestRefused(t *testing.T) {
	for _, x := range []struct {
		what   string
		cmd    uint32
		errno  unix.Errno
		says   string
		undone bool
	}{
		{"limit of devices", cmdAddDev, unix.EACCES, "/sys/module/ublk_drv/parameters/ublks_max", false},
		{"number taken", cmdAddDev, unix.EEXIST, "add ublk device", false},
		{"no numbers left", cmdAddDev, unix.ENOSPC, "add ublk device", false},
		{"depth", cmdAddDev, unix.EINVAL, "tags", false},
		{"no memory", cmdAddDev, unix.ENOMEM, "add ublk device", false},
		{"size", cmdSetParams, unix.EINVAL, "set parameters", true},
	} {
		t.Run(x.what, func(t *testing.T) {
			var stopped, deleted int
			s := kernelSays(t, func(cl *call) int32 {
				switch cl.op {
				case x.cmd:
					return -int32(x.errno)
				case cmdAddDev:
					i := devInfo{ID: 5, Flags: flagUserCopy | flagRecovery}
					copy(cl.buf, bytesOf(&i))
				case cmdStopDev:
					stopped++
				case cmdDelDev, cmdDelDevAsync:
					deleted++
				case cmdGetDevInfo:
					return -int32(unix.ENODEV)
				}
				return 0
			})
			for range 2 {
				_, err := s.Add(soon(t), "disk", frontendtest.NewMemDisk(mib, 4096), AddOptions{})
				if !errors.Is(err, x.errno) || !strings.Contains(err.Error(), x.says) || !strings.Contains(err.Error(), `"disk"`) {
					t.Errorf("%v", err)
				}
			}
			if want := map[bool]int{true: 2}[x.undone]; stopped != want || deleted != want {
				t.Errorf("stopped %d times, deleted %d times", stopped, deleted)
			}
		})
	}
}

// TestImpossibleDevices: the kernel's own refusals say what was asked for, and leave nothing behind.
func TestImpossibleDevices(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		s := openServer(t, zeroCopy)
		taken := serve(t, s, "disk", frontendtest.NewMemDisk(mib, 4096))
		d := s.newDevice("other", 1, frontendtest.NewMemDisk(mib, 4096))
		before := devices(t)
		for what, change := range map[string]func(*devInfo){
			"no queue": func(i *devInfo) { i.Queues = 0 }, "many queues": func(i *devInfo) { i.Queues = 5000 },
			"no tag": func(i *devInfo) { i.Depth = 0 }, "many tags": func(i *devInfo) { i.Depth = 5000 },
			"a number that is taken": func(i *devInfo) { i.ID = uint32(taken.ID()) }, "a high number": func(i *devInfo) { i.ID = 1 << 20 },
		} {
			i := d.wanted()
			change(&i)
			if err := s.control.add(&i); err == nil || !strings.HasPrefix(err.Error(), "add ublk device") {
				t.Errorf("%s: %v", what, err)
			} else {
				t.Logf("%s: %v", what, err)
			}
		}
		for _, sector := range []int{256, 8192, 65536} {
			disk := oddSector{frontendtest.NewMemDisk(mib, 4096), sector}
			if _, err := s.Add(soon(t), "odd", disk, AddOptions{}); err == nil {
				t.Errorf("a sector of %d bytes", sector)
			} else {
				t.Log(err)
			}
		}
		if after := devices(t); after != before {
			t.Errorf("%d devices became %d", before, after)
		}
	})
}

type oddSector struct {
	*frontendtest.MemDisk
	sector int
}

func (d oddSector) SectorSize() int { return d.sector }

func devices(t *testing.T) int {
	t.Helper()
	ids, err := present()
	if err != nil {
		t.Fatal(err)
	}
	return len(ids)
}

// TestHostileHost takes from the lab's kernel what a device needs, one thing after the other: Probe says which, and a
// server does not open. Given back, all is well again.
func TestHostileHost(t *testing.T) {
	if os.Getenv(labEnv) == "" || len(modes(t)) == 0 {
		t.Log("not in the lab, or no ublk in it: nothing is taken from this host")
		return
	}
	awaitThat(t, "no device is left", func() bool { return devices(t) == 0 })
	for _, x := range []struct {
		what, says string
		run        func(t *testing.T, look func())
	}{
		{"io_uring_disabled", "kernel.io_uring_disabled", withoutRings},
		{"no permission", "needs root", asNobody},
		{"no driver", "modprobe ublk_drv", withoutDriver},
	} {
		t.Run(x.what, func(t *testing.T) {
			x.run(t, func() {
				s := Probe()
				t.Log(s.Reason)
				if s.UserCopy || s.ZeroCopy || !strings.Contains(s.Reason, x.says) {
					t.Errorf("%+v", s)
				}
				if srv, err := Open(Options{Owner: t.Name()}); err == nil {
					t.Error("a server opens all the same")
					srv.Close()
				}
			})
			if s := Probe(); !s.UserCopy {
				t.Errorf("afterwards: %+v", s)
			}
		})
	}
}

func withoutRings(t *testing.T, look func()) {
	const knob = "/proc/sys/kernel/io_uring_disabled"
	for _, value := range []string{"2", "0"} {
		if err := os.WriteFile(knob, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
		if value != "0" {
			look()
		}
	}
}

// asNobody looks on a thread that is another user's, and ends with it.
func asNobody(t *testing.T, look func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); e != 0 {
			t.Error(e)
			return
		}
		look()
	}()
	<-done
}

// withoutDriver unloads the driver and forbids modprobe to bring it back.
func withoutDriver(t *testing.T, look func()) {
	const rule = "/etc/modprobe.d/no-ublk.conf"
	awaitThat(t, "the driver is unloaded", func() bool { return unix.DeleteModule("ublk_drv", 0) == nil })
	err := os.MkdirAll(filepath.Dir(rule), 0o755)
	if err == nil {
		err = os.WriteFile(rule, []byte("install ublk_drv /bin/false\n"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	look()
	if err := os.Remove(rule); err != nil {
		t.Fatal(err)
	}
}
