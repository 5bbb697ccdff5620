package ublk

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/frontendtest"
	"glidefs-appliance/frontends/ublk/uring"

	"golang.org/x/sys/unix"
)

const mib = 1 << 20

// eachMode runs a test in every mode that the host offers.
func eachMode(t *testing.T, fn func(t *testing.T, zeroCopy bool)) {
	for mode, zeroCopy := range modes(t) {
		t.Run(mode, func(t *testing.T) { fn(t, zeroCopy) })
	}
}

func openDirect(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// alignedBytes is memory for O_DIRECT.
func alignedBytes(t *testing.T, n int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return b
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// TestHandOver: a server that closes leaves its devices to the next one, and what was asked meanwhile is answered.
func TestHandOver(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		disk := frontendtest.NewMemDisk(mib, 4096)
		owner := t.Name() + strconv.Itoa(os.Getpid())
		a := openOwned(t, zeroCopy, owner)
		dev, err := a.Add(soon(t), "disk", disk, AddOptions{})
		if err != nil {
			t.Fatal(err)
		}
		f, p, q := openDirect(t, dev.Path()), alignedBytes(t, 8192), alignedBytes(t, 8192)
		rand.Read(p)
		if _, err := f.WriteAt(p, 4096); err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		read := make(chan error)
		go func() {
			_, err := f.ReadAt(q, 4096)
			read <- err
		}()
		b := openOwned(t, zeroCopy, owner)
		if err := b.Settle(soon(t)); err != nil {
			t.Fatal(err)
		}
		if n, err := b.Sweep([]string{"disk"}); n != 0 || err != nil {
			t.Errorf("swept %d devices that are wanted, %v", n, err)
		}
		again := serve(t, b, "disk", disk)
		if again.ID() != dev.ID() {
			t.Errorf("device %d became %d", dev.ID(), again.ID())
		}
		if err := <-read; err != nil || !bytes.Equal(p, q) {
			t.Errorf("a read during the hand-over: %v, or other bytes", err)
		}
		f.Close()
	})
}

// TestHandOverBusy: a server that closes while its devices have requests all the time lets go of each, and their users
// get no error.
func TestHandOverBusy(t *testing.T) {
	const devices = 8
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		owner := t.Name() + strconv.Itoa(os.Getpid())
		a, disks, ids := openOwned(t, zeroCopy, owner), [devices]frontends.Disk{}, [devices]int{}
		var stop atomic.Bool
		var users sync.WaitGroup
		for i := range disks {
			disks[i] = frontendtest.NewMemDisk(mib, 4096)
			dev, err := a.Add(soon(t), fmt.Sprint("disk", i), disks[i], AddOptions{})
			if err != nil {
				t.Fatal(err)
			}
			ids[i] = dev.ID()
			f, p := openDirect(t, dev.Path()), alignedBytes(t, 64<<10)
			users.Go(func() {
				for off := int64(0); !stop.Load(); off = (off + int64(len(p))) % mib {
					if _, err := f.WriteAt(p, off); err != nil {
						t.Errorf("device %d: %v", dev.ID(), err)
						return
					}
				}
			})
			awaitRequests(t, dev.Path(), 10)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		b := openOwned(t, zeroCopy, owner)
		if err := b.Settle(soon(t)); err != nil {
			t.Fatal(err)
		}
		for i, d := range disks {
			if again := serve(t, b, fmt.Sprint("disk", i), d); again.ID() != ids[i] {
				t.Errorf("device %d became %d", ids[i], again.ID())
			}
		}
		stop.Store(true)
		users.Wait()
	})
}

// TestHandOverHeld: reads that wait for the store when a server closes are answered by the next one.
func TestHandOverHeld(t *testing.T) {
	const reads = 8
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		owner := t.Name() + strconv.Itoa(os.Getpid())
		a, spy, held := openOwned(t, zeroCopy, owner), frontendtest.Watch(frontendtest.NewMemDisk(mib, 4096)), make(chan struct{}, reads)
		dev, err := a.Add(soon(t), "disk", spy, AddOptions{})
		if err != nil {
			t.Fatal(err)
		}
		spy.Hook(func(ctx context.Context, _ string) error {
			held <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		})
		f := openDirect(t, dev.Path())
		var users sync.WaitGroup
		for i := range int64(reads) {
			p := alignedBytes(t, 4096)
			users.Go(func() {
				if _, err := f.ReadAt(p, i*4096); err != nil {
					t.Error(err)
				}
			})
		}
		for range reads {
			<-held
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		spy.Hook(nil)
		b := openOwned(t, zeroCopy, owner)
		if err := b.Settle(soon(t)); err != nil {
			t.Fatal(err)
		}
		serve(t, b, "disk", spy)
		users.Wait()
	})
}

// TestCloseWhileAdding: a server that closes while a new device's first blocks are read, before the kernel looks for
// partitions or by it, on a disk whose store does not answer, leaves nothing behind; nor does an Add whose caller gives up.
// A process could not end otherwise.
func TestCloseWhileAdding(t *testing.T) {
	ends := map[string]func(s *Server, giveUp func()) error{
		"closed":   func(s *Server, _ func()) error { return s.Close() },
		"given up": func(_ *Server, giveUp func()) error { giveUp(); return nil },
	}
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		owner := t.Name() + strconv.Itoa(os.Getpid())
		for name, end := range ends {
			for _, byKernel := range []bool{false, true} {
				endWhileAdding(t, openOwned(t, zeroCopy, owner), byKernel, end)
				if n := orphaned(t, openOwned(t, zeroCopy, owner)); n != 0 {
					t.Errorf("%s, read by the kernel %t: %d devices are left", name, byKernel, n)
				}
			}
		}
	})
}

func endWhileAdding(t *testing.T, s *Server, byKernel bool, end func(s *Server, giveUp func()) error) {
	t.Helper()
	spy, held, begun := frontendtest.Watch(frontendtest.NewMemDisk(mib, 4096)), make(chan struct{}, 1), atomic.Bool{}
	s.control.inject(func(_ *uring.SQE, cl *call) {
		if cl.op == cmdStartDev {
			begun.Store(true)
		}
	})
	spy.Hook(func(ctx context.Context, _ string) error {
		if begun.Load() != byKernel {
			return nil
		}
		select {
		case held <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return ctx.Err()
	})
	ctx, giveUp := context.WithCancel(soon(t))
	defer giveUp()
	added := make(chan error)
	go func() {
		_, err := s.Add(ctx, "disk", spy, AddOptions{})
		added <- err
	}()
	<-held
	if err := end(s, giveUp); err != nil {
		t.Error(err)
	}
	if err := <-added; !errors.Is(err, context.Canceled) {
		t.Errorf("read by the kernel %t: added: %v", byKernel, err)
	}
}

// TestSweep: what nobody wants is removed, what others own is not.
func TestSweep(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		ids := map[string]int{}
		owner := t.Name() + strconv.Itoa(os.Getpid())
		for _, o := range []string{owner, owner + " other"} {
			s := openOwned(t, zeroCopy, o)
			dev, err := s.Add(soon(t), "disk", frontendtest.NewMemDisk(mib, 512), AddOptions{})
			if err != nil {
				t.Fatal(err)
			}
			ids[o] = dev.ID()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		sweep := func(owner string) {
			s := openOwned(t, zeroCopy, owner)
			if err := s.Settle(soon(t)); err != nil {
				t.Fatal(err)
			}
			if n, err := s.Sweep([]string{"another"}); n != 1 || err != nil {
				t.Errorf("swept %d devices, %v; want one", n, err)
			}
		}
		there := func(id int) bool {
			_, err := os.Stat(charPath(uint32(id)))
			return err == nil
		}
		sweep(owner)
		if there(ids[owner]) || !there(ids[owner+" other"]) {
			t.Errorf("ours is there: %t, the other's: %t", there(ids[owner]), there(ids[owner+" other"]))
		}
		sweep(owner + " other")
	})
}

// TestSweepAfterTheSamePID: who served a device is told by the device, not by the number of the process: in a container the
// next daemon has that of the last one.
func TestSweepAfterTheSamePID(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		owner := t.Name() + strconv.Itoa(os.Getpid())
		a, b := openOwned(t, zeroCopy, owner), openOwned(t, zeroCopy, owner)
		if _, err := a.Add(soon(t), "disk", frontendtest.NewMemDisk(mib, 4096), AddOptions{}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if err := b.Settle(ctx); err == nil {
			t.Error("it did not wait for the one who serves the device")
		}
		if err := a.Settle(soon(t)); err != nil {
			t.Errorf("it waited for itself: %v", err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if err := b.Settle(soon(t)); err != nil {
			t.Error(err)
		}
		if n, err := b.Sweep(nil); n != 1 || err != nil {
			t.Errorf("swept %d devices, %v", n, err)
		}
	})
}

// TestLeftWithOtherShape: a device that cannot go on as the disk is replaced.
func TestLeftWithOtherShape(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		owner := t.Name() + strconv.Itoa(os.Getpid())
		a := openOwned(t, zeroCopy, owner)
		if _, err := a.Add(soon(t), "disk", frontendtest.NewMemDisk(mib, 512), AddOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		b := openOwned(t, zeroCopy, owner)
		if err := b.Settle(soon(t)); err != nil {
			t.Fatal(err)
		}
		dev := serve(t, b, "disk", frontendtest.NewMemDisk(mib, 4096))
		f := openDirect(t, dev.Path())
		if sector, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET); err != nil || sector != 4096 {
			t.Errorf("sector %d, %v", sector, err)
		}
		f.Close()
	})
}

func TestNames(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		s := openServer(t, zeroCopy)
		dev, err := s.Add(soon(t), "disk", frontendtest.NewMemDisk(mib, 4096), AddOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Add(soon(t), "disk", frontendtest.NewMemDisk(mib, 4096), AddOptions{}); !errors.Is(err, ErrExists) {
			t.Errorf("a second time: %v", err)
		}
		if err := s.Remove(soon(t), "other", false); !errors.Is(err, ErrNotFound) {
			t.Errorf("remove of nothing: %v", err)
		}
		fd, err := unix.Open(dev.Path(), unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Remove(soon(t), "disk", false); !errors.Is(err, ErrBusy) {
			t.Errorf("remove of a held device: %v", err)
		}
		unix.Close(fd)
		if err := s.Remove(soon(t), "disk", false); err != nil {
			t.Error(err)
		}
	})
}

func TestGrow(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		s, disk := openServer(t, zeroCopy), frontendtest.NewMemDisk(mib, 4096)
		dev := serve(t, s, "disk", disk)
		disk.Grow(3 * mib)
		err := s.Resize("disk")
		if s.offers(flagUpdateSize) == errors.Is(err, errors.ErrUnsupported) || !s.offers(flagUpdateSize) == (err == nil) {
			t.Fatalf("resize: %v", err)
		}
		if err != nil {
			return
		}
		f := openDirect(t, dev.Path())
		defer f.Close()
		if n, err := f.Seek(0, 2); n != 3*mib || err != nil {
			t.Errorf("size %d, %v", n, err)
		}
		if _, err := f.WriteAt(alignedBytes(t, 4096), 3*mib-4096); err != nil {
			t.Error(err)
		}
	})
}

func (s *Server) offers(flag uint64) bool {
	f, err := s.control.features()
	return err == nil && f&flag != 0
}

// TestForce: a disk whose requests wait without limit can be taken away from its users.
func TestForce(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		s, spy := openServer(t, zeroCopy), frontendtest.Watch(frontendtest.NewMemDisk(mib, 4096))
		dev, err := s.Add(soon(t), "disk", spy, AddOptions{})
		if err != nil {
			t.Fatal(err)
		}
		f := openDirect(t, dev.Path())
		entered := make(chan struct{}, 16)
		spy.Hook(func(ctx context.Context, _ string) error {
			entered <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		})
		done := make(chan error)
		go func() {
			_, err := f.WriteAt(alignedBytes(t, 4096), 0)
			f.Close()
			done <- err
		}()
		<-entered
		if err := s.Remove(soon(t), "disk", true); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, unix.EIO) {
			t.Errorf("the write that waited: %v, want EIO", err)
		}
	})
}

// TestPanic: a panic below a request is EIO and is reported; the device goes on.
func TestPanic(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		told := make(chan string, 16)
		s := openServer(t, zeroCopy)
		s.o.OnPanic = func(name string, v any, _ []byte) { told <- name }
		spy := frontendtest.Watch(frontendtest.NewMemDisk(mib, 4096))
		f := openDirect(t, serve(t, s, "disk", spy).Path())
		t.Cleanup(func() { f.Close() })
		spy.Hook(func(context.Context, string) error { panic("as asked") })
		if _, err := f.WriteAt(alignedBytes(t, 4096), 0); !errors.Is(err, unix.EIO) {
			t.Errorf("write: %v", err)
		}
		if name := <-told; name != "disk" {
			t.Errorf("reported for %q", name)
		}
		spy.Hook(nil)
		if _, err := f.WriteAt(alignedBytes(t, 4096), 0); err != nil {
			t.Errorf("write after the panic: %v", err)
		}
	})
}

// wild is a disk that panics in one of the calls that come on a worker's thread.
type wild struct {
	*frontendtest.MemDisk
	in   string
	file *os.File
}

func (w *wild) MapRead(int64, int64, *frontends.Plan) bool {
	w.reach("map")
	return false
}

func (w *wild) TryReserve(off, n int64, place *frontends.Placement) bool {
	w.reach("reserve")
	fd := int(w.file.Fd())
	place.Extents = append(place.Extents[:0], frontends.Extent{FD: fd, Direct: fd, Off: off, Len: n})
	return true
}

func (w *wild) Reserve(_ context.Context, off, n int64, place *frontends.Placement) error {
	w.TryReserve(off, n, place)
	return nil
}

func (w *wild) Commit([]frontends.Write) error {
	w.reach("commit")
	return nil
}

func (w *wild) Abandon(*frontends.Placement) { w.reach("abandon") }

func (w *wild) reach(call string) {
	if w.in == call {
		panic("as asked")
	}
}

// TestPanicOnTheRing: nor does a panic on a worker's thread end what that does for other disks.
func TestPanicOnTheRing(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		var told sync.Map // the kernel reads a new device too
		s := openServer(t, zeroCopy)
		s.o.OnPanic = func(name string, v any, _ []byte) { told.Store(name, v) }
		file, err := os.Create(t.TempDir() + "/log")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		p := alignedBytes(t, 64<<10)
		for _, call := range []string{"map", "reserve", "commit"} {
			name := t.Name() + call
			f := openDirect(t, serve(t, s, name, &wild{MemDisk: frontendtest.NewMemDisk(mib, 4096), in: call, file: file}).Path())
			switch _, err := f.WriteAt(p, 0); {
			case call == "commit" && !errors.Is(err, unix.EIO):
				t.Errorf("%s: write: %v", call, err)
			case call != "commit" && err != nil: // there are other ways
				t.Errorf("%s: write: %v", call, err)
			}
			if _, err := f.ReadAt(p, 0); err != nil {
				t.Errorf("%s: read: %v", call, err)
			}
			f.Close()
			if v, _ := told.Load(name); v != "as asked" {
				t.Errorf("%s: what was told is %v", call, v)
			}
		}
		f := openDirect(t, serve(t, s, t.Name(), frontendtest.NewMemDisk(mib, 4096)).Path())
		defer f.Close()
		if _, err := f.WriteAt(p, 0); err != nil {
			t.Errorf("write to another disk: %v", err)
		}
	})
}

// removalLimit is what taking one device away may cost while all the others are there: the median of some.
const (
	removalLimit = time.Second
	removals     = 5
)

// TestMany: many devices share the threads, are written to all at once, are taken back by the next server, read all at
// once, and go away. GLIDEFS_DEVICES says how many; what they cost is printed.
func TestMany(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		n := 32
		_, _ = fmt.Sscan(os.Getenv("GLIDEFS_DEVICES"), &n)
		owner := t.Name() + strconv.Itoa(os.Getpid())
		a := openOwned(t, zeroCopy, owner)
		disks, paths := make([]*frontendtest.MemDisk, n), make([]string, n)
		for i := range disks {
			disks[i] = frontendtest.NewMemDisk(stormPiece, 4096)
		}
		before, began := resident(t), time.Now()
		addAll(t, a, disks, func(i int, dev *Device) {
			paths[i] = dev.Path()
			checkOne(t, paths[i], byte(i+1))
		})
		t.Logf("%d devices made and used in %v, %d KiB of memory each", n, time.Since(began), (resident(t)-before)/int64(n))
		all := newFleet(paths)
		all.each(t, paths, func(a *area, p []byte) error { return a.write(p, 0, 1) })
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		b := openOwned(t, zeroCopy, owner)
		if err := b.Settle(soon(t)); err != nil {
			t.Fatal(err)
		}
		addAll(t, b, disks, func(i int, dev *Device) {
			if dev.Path() != paths[i] {
				t.Errorf("%s came back as %s", paths[i], dev.Path())
			}
		})
		t.Logf("taken back in %v", time.Since(began))
		all.each(t, paths, func(a *area, p []byte) error { return a.read(p, 0) })
		var took []time.Duration
		for i := range removals {
			began = time.Now()
			if err := b.Remove(soon(t), strconv.Itoa(i), false); err != nil {
				t.Error(err)
			}
			took = append(took, time.Since(began))
		}
		if m := middle(took); m > removalLimit {
			t.Errorf("one of %d devices is removed in %v", n, m)
		}
		t.Logf("some removed, one after the other, in %v", took)
		began = time.Now()
		errs := make(chan error)
		for i := removals; i < n; i++ {
			go func() { errs <- b.Remove(soon(t), strconv.Itoa(i), false) }()
		}
		for range n - removals {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		t.Logf("the others removed in %v", time.Since(began))
	})
}

func addAll(t *testing.T, s *Server, disks []*frontendtest.MemDisk, use func(int, *Device)) {
	t.Helper()
	for i, d := range disks {
		dev, err := s.Add(soon(t), strconv.Itoa(i), d, AddOptions{})
		if err != nil {
			t.Fatal(err)
		}
		use(i, dev)
	}
}

// TestFlusher: the threads that serve never wait for write-back, which may be waiting for them.
func TestFlusher(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		is := make(chan int)
		for _, w := range openServer(t, zeroCopy).workers {
			w.inbox.call(func(*worker) {
				flusher, err := unix.PrctlRetInt(unix.PR_GET_IO_FLUSHER, 0, 0, 0, 0)
				if err != nil {
					t.Error(err)
				}
				is <- flusher
			})
			if <-is != 1 {
				t.Errorf("worker %d may wait for write-back", w.index)
			}
		}
	})
}

// checkOne writes a block and reads it back.
func checkOne(t *testing.T, path string, value byte) {
	t.Helper()
	f := openDirect(t, path)
	defer f.Close()
	checkFile(t, f, value)
}

func checkFile(t *testing.T, f *os.File, value byte) {
	t.Helper()
	p := alignedBytes(t, 4096)
	p[0] = value
	if _, err := f.WriteAt(p, 8192); err != nil {
		t.Fatal(err)
	}
	clear(p)
	if _, err := f.ReadAt(p, 8192); err != nil || p[0] != value {
		t.Errorf("%s: %v, byte %d", f.Name(), err, p[0])
	}
}

// resident memory of this process, in KiB.
func resident(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize()) / 1024
}
