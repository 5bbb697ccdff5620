package ublk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/frontendtest"
	"glidefs-appliance/frontends/ublk/uring"

	"golang.org/x/sys/unix"
)

// nullControl sends commands to /dev/null, which says yes to any (6.1).
func nullControl(t *testing.T, tamper func(*uring.SQE, *call)) *control {
	t.Helper()
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := newControl(fd, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	c.inject(tamper)
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *control) inject(tamper func(*uring.SQE, *call)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.grace, c.tamper = soonLost, tamper
}

// soonLost is how long tests wait before a command, or its cancellation, counts as lost.
const soonLost = 20 * time.Millisecond

// losses are the ways in which a command does not come back.
var losses = map[string]func(t *testing.T, s *uring.SQE, cl *call){
	// As io-wq loses it: the kernel has it and never runs it, until it is cancelled.
	"never run": func(t *testing.T, s *uring.SQE, cl *call) {
		slot := s.UserData
		*s = uring.SQE{}
		s.Poll(silent(t), unix.POLLIN)
		s.UserData = slot
	},
	// Neither run nor to be cancelled.
	"deaf": func(_ *testing.T, s *uring.SQE, cl *call) {
		*s = uring.SQE{}
		s.Nop()
		s.UserData = tagIgnored
	},
	// Run, and the answer is lost.
	"no answer": func(_ *testing.T, s *uring.SQE, cl *call) { s.UserData = tagIgnored },
}

// silent is an eventfd that nobody writes to.
func silent(t *testing.T) int {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Error(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// lose the first n commands of a kind; 0 stands for any.
func lose(t *testing.T, how string, op uint32, n int) func(*uring.SQE, *call) {
	return func(s *uring.SQE, cl *call) {
		if n == 0 || op != 0 && cl.op != op {
			return
		}
		n--
		losses[how](t, s, cl)
		cl.deadline = time.Now().Add(soonLost)
	}
}

func (c *control) state() (lead *flights, rings int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lead, len(c.rings)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if err := poll(soon(t), 10*time.Second, func() (bool, error) { return ok(), nil }); err != nil || !ok() {
		t.Fatalf("never: %s (%v)", what, err)
	}
}

func (c *control) send(op uint32) error { return c.do(&call{op: op, limit: time.Minute}) }

// TestLostCommand: after a loss another ring leads, and the one that lost it ends when it has nothing in flight.
func TestLostCommand(t *testing.T) {
	for how := range losses {
		t.Run(how, func(t *testing.T) {
			c := nullControl(t, lose(t, how, 0, 1))
			first, _ := c.state()
			if err := c.send(cmdStopDev); !errors.Is(err, errStuck) {
				t.Fatalf("the lost command: %v", err)
			}
			if err := c.send(cmdStopDev); err != nil {
				t.Fatalf("the next one: %v", err)
			}
			want := 2
			if how == "never run" {
				want = 1
			}
			// The successor is there before the next command is, or after it: it went through either.
			eventually(t, "another ring leads", func() bool {
				lead, rings := c.state()
				return lead != first && rings == want
			})
			if err := c.send(cmdStopDev); err != nil {
				t.Errorf("on the new ring: %v", err)
			}
		})
	}
}

// TestLostAgainAndAgain: rings are bounded, and what is sent on the last one has its deadline.
func TestLostAgainAndAgain(t *testing.T) {
	c := nullControl(t, lose(t, "deaf", 0, 2*maxRings))
	for range 2 * maxRings {
		if err := c.send(cmdStopDev); !errors.Is(err, errStuck) {
			t.Fatal(err)
		}
	}
	if err := c.send(cmdStopDev); err != nil {
		t.Error(err)
	}
	if _, rings := c.state(); rings != maxRings {
		t.Errorf("%d rings", rings)
	}
}

// TestRetiredRing: what is in flight when another ring takes over ends where it is.
func TestRetiredRing(t *testing.T) {
	fd := silent(t)
	entered := make(chan struct{})
	c := nullControl(t, func(s *uring.SQE, cl *call) {
		switch cl.op {
		case cmdStartDev: // slow
			losses["never run"](t, s, cl)
			s.Poll(fd, unix.POLLIN)
			close(entered)
		case cmdStopDev: // lost
			losses["deaf"](t, s, cl)
			cl.deadline = time.Now().Add(soonLost)
		}
	})
	slow := make(chan error)
	go func() { slow <- c.send(cmdStartDev) }()
	<-entered
	first, _ := c.state()
	if err := c.send(cmdStopDev); !errors.Is(err, errStuck) {
		t.Fatal(err)
	}
	eventually(t, "another ring leads", func() bool {
		lead, _ := c.state()
		return lead != first
	})
	if _, err := unix.Write(fd, slices.Repeat([]byte{1}, 8)); err != nil {
		t.Fatal(err)
	}
	if err := <-slow; err != nil {
		t.Errorf("the slow command: %v", err)
	}
}

// TestCloseWithLost: nobody is left waiting.
func TestCloseWithLost(t *testing.T) {
	const n = 2 * controlSlots
	lost := make(chan struct{}, n)
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := newControl(fd, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c.inject(func(s *uring.SQE, cl *call) {
		losses["deaf"](t, s, cl)
		lost <- struct{}{}
	})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if err := c.send(cmdStopDev); !errors.Is(err, errStuck) {
				t.Error(err)
			}
		})
	}
	for range controlSlots {
		<-lost
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if err := c.send(cmdStopDev); !errors.Is(err, errStuck) {
		t.Errorf("after the end: %v", err)
	}
}

// TestLateDevice: a device that comes after its command was given up is taken away.
func TestLateDevice(t *testing.T) {
	fd := silent(t)
	mem, err := uring.Map(8)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	var c *control
	var adds atomic.Int32
	dropped := make(chan uint32, 1)
	c = nullControl(t, func(s *uring.SQE, cl *call) {
		switch {
		case cl.op == cmdDelDevAsync:
			dropped <- cl.dev
		case cl.op == cmdAddDev && adds.Add(1) == 1:
			// What waits for another request is not found by a cancellation.
			slot := s.UserData
			*s = uring.SQE{}
			s.Read(fd, mem, 0)
			s.Link()
			s.UserData = tagIgnored
			s = c.lead.ring.Get()
			s.Nop()
			s.UserData = slot
			cl.deadline = time.Now().Add(soonLost)
		}
	})
	info := devInfo{ID: 7}
	if err := c.add(&info); err != nil || adds.Load() != 2 {
		t.Fatalf("%v after %d commands", err, adds.Load())
	}
	if _, err := unix.Write(fd, slices.Repeat([]byte{1}, 8)); err != nil {
		t.Fatal(err)
	}
	select {
	case id := <-dropped:
		if id != 7 {
			t.Errorf("device %d is dropped", id)
		}
	case <-soon(t).Done():
		t.Error("the late device stays")
	}
}

// TestLostOnDevice: whichever command of a device's life gets lost, and however, the device lives and dies as it should,
// and another one's requests are answered meanwhile.
func TestLostOnDevice(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		s := openServer(t, zeroCopy)
		other := openDirect(t, serve(t, s, "other", frontendtest.NewMemDisk(mib, 4096)).Path())
		for how := range losses {
			for name, op := range map[string]uint32{
				"add": cmdAddDev, "parameters": cmdSetParams, "start": cmdStartDev, "information": cmdGetDevInfo, "stop": cmdStopDev,
				"delete": cmdDelDev, "drop": cmdDelDevAsync,
			} {
				t.Run(name+" "+how, func(t *testing.T) {
					stop := busy(t, other)
					defer stop()
					s.control.inject(lose(t, how, op, 1))
					defer s.control.inject(nil)
					dev, err := s.Add(soon(t), "disk", frontendtest.NewMemDisk(mib, 4096), AddOptions{})
					if err != nil {
						t.Fatal(err)
					}
					checkOne(t, dev.Path(), 5)
					if err := s.Remove(soon(t), "disk", name == "drop"); err != nil {
						t.Error(err)
					}
					if orphans := orphaned(t, s); orphans > 0 && (name != "add" || how != "no answer") {
						t.Errorf("%d devices are left", orphans)
					}
				})
			}
		}
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestLostInRecovery: whichever command gets lost while a device is taken back, and if its answer never comes at all, its
// users get no error: it goes on, or waits for another try.
func TestLostInRecovery(t *testing.T) {
	disk := frontendtest.NewMemDisk(mib, 4096)
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		for how := range losses {
			for name, op := range map[string]uint32{
				"parameters": cmdGetParams, "start": cmdStartRecovery, "end": cmdEndRecovery, "size": cmdUpdateSize,
			} {
				t.Run(name+" "+how, func(t *testing.T) {
					path, f := leave(t, zeroCopy, t.Name(), disk)
					s := openOwned(t, zeroCopy, t.Name())
					s.control.inject(lose(t, how, op, 1))
					dev := serve(t, s, "disk", disk)
					s.control.inject(nil)
					if dev.Path() != path {
						t.Errorf("%s became %s", path, dev.Path())
					}
					checkFile(t, f, 3)
				})
			}
		}
		for name, op := range map[string]uint32{"parameters": cmdGetParams, "start": cmdStartRecovery, "size": cmdUpdateSize} {
			t.Run(name+" always", func(t *testing.T) {
				path, f := leave(t, zeroCopy, t.Name(), disk)
				s := openOwned(t, zeroCopy, t.Name())
				s.control.inject(lose(t, "never run", op, 2))
				if _, err := s.Add(soon(t), "disk", disk, AddOptions{}); err == nil {
					t.Cleanup(func() { _ = s.Remove(context.Background(), "disk", true) })
				} else if dev := serve(t, s, "disk", disk); dev.Path() != path {
					t.Errorf("%s became %s", path, dev.Path())
				}
				checkFile(t, f, 4)
			})
		}
	})
}

// TestDiedInRecovery: a device whose next server died while it took it back is taken back by the one after that.
func TestDiedInRecovery(t *testing.T) {
	disk := frontendtest.NewMemDisk(mib, 4096)
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		for _, fetched := range []bool{false, true} {
			owner := fmt.Sprint(t.Name(), fetched)
			path, f := leave(t, zeroCopy, owner, disk)
			a := openOwned(t, zeroCopy, owner)
			d := a.newDevice("disk", diskCookie(a.owner, "disk"), disk)
			old, err := a.left(d.cookie)
			if err != nil || old == nil {
				t.Fatal(old, err)
			}
			err = errors.Join(d.granted(*old), a.startRecovery(soon(t), old.ID))
			if fetched {
				err = errors.Join(err, d.serve(soon(t)))
			}
			if err = errors.Join(err, a.Close(), d.closeChar()); err != nil {
				t.Fatal(err)
			}
			dev := serve(t, openOwned(t, zeroCopy, owner), "disk", disk)
			if dev.Path() != path {
				t.Errorf("fetched %t: %s became %s", fetched, path, dev.Path())
			}
			checkFile(t, f, 6)
		}
	})
}

// leave makes a device that waits for its next server, and has a user.
func leave(t *testing.T, zeroCopy bool, owner string, disk frontends.Disk) (path string, f *os.File) {
	t.Helper()
	s := openOwned(t, zeroCopy, owner)
	dev, err := s.Add(soon(t), "disk", disk, AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f = openDirect(t, dev.Path())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dev.Path(), f
}

// TestStuckStart: up to 6.17 START_DEV searches for partitions and hears nothing meanwhile. While its first read is
// held, the command is given up, and so is its ring; the device comes all the same, and others have noticed nothing.
func TestStuckStart(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		s := openServer(t, zeroCopy)
		other := openDirect(t, serve(t, s, "other", frontendtest.NewMemDisk(mib, 4096)).Path())
		stop := busy(t, other)
		spy, held, begun := frontendtest.Watch(frontendtest.NewMemDisk(mib, 4096)), make(chan struct{}), atomic.Bool{}
		spy.Hook(func(context.Context, string) error {
			if begun.Load() {
				<-held
			}
			return nil
		})
		started := make(chan uint32, 2)
		s.control.inject(func(_ *uring.SQE, cl *call) {
			if cl.op == cmdStartDev {
				begun.Store(true)
				started <- cl.dev
				cl.deadline = time.Now().Add(soonLost)
				s.control.tamper = nil
			}
		})
		before, _ := s.control.state()
		added := make(chan error)
		go func() {
			_, err := s.Add(soon(t), "disk", spy, AddOptions{})
			added <- err
		}()
		id := <-started
		eventually(t, "the command is given up, or needs no read", func() bool {
			lead, _ := s.control.state()
			return lead != before || live(s.control.info(id))
		})
		close(held)
		if err := <-added; err != nil {
			t.Fatal(err)
		}
		stop()
		checkOne(t, blockPath(id), 7)
		if err := errors.Join(other.Close(), s.Remove(soon(t), "disk", false)); err != nil {
			t.Error(err)
		}
	})
}

// busy keeps a device busy until the function that it returns is called.
func busy(t *testing.T, f interface {
	WriteAt([]byte, int64) (int, error)
}) (stop func()) {
	p := alignedBytes(t, 4096)
	quit, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for ; ; n++ {
			select {
			case <-quit:
				done <- n
				return
			default:
			}
			if _, err := f.WriteAt(p, int64(n%64)*4096); err != nil {
				t.Error(err)
			}
		}
	}()
	return func() {
		close(quit)
		if n := <-done; n == 0 {
			t.Error("the other device stood still")
		}
	}
}

// orphaned counts this owner's dead devices, and takes them away.
func orphaned(t *testing.T, s *Server) (n int) {
	t.Helper()
	list, err := s.owned()
	if err != nil {
		t.Error(err)
	}
	for _, i := range list {
		if i.State != stateLive {
			n++
			if err := s.discard(i); err != nil {
				t.Error(err)
			}
		}
	}
	return n
}
