package uring

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const workerFlags = SetupSubmitAll | SetupCoopTaskrun | SetupSingleIssuer | SetupDeferTaskrun

// onRing runs fn on a locked thread with a ring of its own.
func onRing(t *testing.T, entries int, flags uint32, fn func(r *Ring)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // not unlocked: the thread ends with the ring
		r, err := Setup(entries, 4*entries, flags)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}()
		fn(r)
	}()
	<-done
}

// collect waits for n completions.
func collect(t *testing.T, r *Ring, n int) []CQE {
	t.Helper()
	got := make([]CQE, 0, n)
	for len(got) < n {
		if err := r.Wait(1, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		var buf [7]CQE // smaller than what may be there
		k := r.Reap(buf[:])
		got = append(got, buf[:k]...)
	}
	return got
}

func TestNops(t *testing.T) {
	for name, flags := range map[string]uint32{"control": SetupSQE128, "worker": workerFlags} {
		t.Run(name, func(t *testing.T) {
			onRing(t, 8, flags, func(r *Ring) {
				seen := map[uint64]bool{}
				for i := range uint64(30) { // more than the queue holds: Get submits
					s := r.Get()
					s.Nop()
					s.UserData = i
				}
				for _, c := range collect(t, r, 30) {
					if c.Res != 0 || seen[c.UserData] {
						t.Errorf("completion %+v, or a second time", c)
					}
					seen[c.UserData] = true
				}
			})
		})
	}
}

func TestFileIO(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	onRing(t, 8, workerFlags, func(r *Ring) {
		mem, err := Map(16384)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Munmap(mem)
		out, in := mem[:8192], mem[8192:]
		for i := range out {
			out[i] = byte(i * 13)
		}
		for _, prep := range []func(s *SQE) int32{
			func(s *SQE) int32 { s.Write(int(f.Fd()), out, 100); return 8192 },
			func(s *SQE) int32 { s.Fdatasync(int(f.Fd())); return 0 },
			func(s *SQE) int32 { s.Read(int(f.Fd()), in, 100); return 8192 },
			func(s *SQE) int32 { s.Read(int(f.Fd()), in[:10], 1<<20); return 0 },
			func(s *SQE) int32 { s.Read(-1, in, 0); return -int32(unix.EBADF) },
		} {
			want := prep(r.Get())
			if c := collect(t, r, 1)[0]; c.Res != want {
				t.Errorf("result %d, want %d", c.Res, want)
			}
		}
		if !bytes.Equal(in, out) {
			t.Error("read other bytes than written")
		}
	})
}

// TestLink: what is linked to a request that came short or failed is cancelled, and its completion comes second.
func TestLink(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	onRing(t, 4, workerFlags, func(r *Ring) {
		mem, err := Map(4096)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Munmap(mem)
		for off, want := range map[int64]int32{0: 0, 1: -int32(unix.ECANCELED)} {
			for range 5 { // more than the queue holds
				r.Room(2)
				s := r.Get()
				s.Read(int(f.Fd()), mem, off)
				s.Link()
				s = r.Get()
				s.Nop()
				s.UserData = 1
				c := collect(t, r, 2)
				if c[0].UserData != 0 || c[1].UserData != 1 || c[1].Res != want {
					t.Errorf("read of a page at %d, then a nop: %+v; want %d", off, c, want)
				}
			}
		}
	})
}

// TestSilent: of a chain the last one completes, or the one that failed and nothing else.
func TestSilent(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zero, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer zero.Close()
	if err := f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	onRing(t, 8, workerFlags, func(r *Ring) {
		mem, err := Map(8192)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Munmap(mem)
		flag := mem[4096:][:4]
		for _, c := range []struct {
			off  int64
			want CQE
			flag byte
		}{{0, CQE{UserData: 3}, 0}, {1, CQE{UserData: 1, Res: 4095}, 1}, {0, CQE{UserData: 3}, 0}} {
			flag[0] = 1
			r.Room(3)
			s := r.Get()
			s.Read(int(f.Fd()), mem[:4096], c.off)
			s.Link()
			s.Silent()
			s.UserData = 1
			s = r.Get()
			s.Read(int(zero.Fd()), flag, 0)
			s.Link()
			s.Silent()
			s.UserData = 2
			s = r.Get()
			s.Nop()
			s.UserData = 3
			if got := collect(t, r, 1)[0]; got != c.want || flag[0] != c.flag {
				t.Errorf("read at %d: %+v and flag %d, want %+v and %d", c.off, got, flag[0], c.want, c.flag)
			}
			if err := r.Wait(1, 10*time.Millisecond); err != nil {
				t.Error(err)
			}
			var more [4]CQE
			if n := r.Reap(more[:]); n > 0 {
				t.Errorf("read at %d: %+v too", c.off, more[:n])
			}
		}
	})
}

func TestFixedNeedsBuffer(t *testing.T) {
	onRing(t, 8, workerFlags, func(r *Ring) {
		if err := r.RegisterSparse(16384); err != nil {
			t.Error(err)
			return
		}
		f, err := os.Open("/dev/zero")
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		r.Get().ReadFixed(int(f.Fd()), 16383, 0, 512, 0)
		if c := collect(t, r, 1)[0]; c.Res != -int32(unix.EFAULT) {
			t.Errorf("read into an empty slot: %d, want EFAULT", c.Res)
		}
	})
}

func TestWaker(t *testing.T) {
	w, err := NewWaker()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	asleep := make(chan struct{})
	go func() {
		for range asleep {
			w.Wake()
			w.Wake() // the second has nobody to wake
		}
	}()
	onRing(t, 8, workerFlags, func(r *Ring) {
		w.Arm(r, 7)
		for range 100 {
			w.Sleep()
			asleep <- struct{}{}
			c := collect(t, r, 1)[0]
			w.Awake()
			if c.UserData != 7 || c.Flags&FlagMore == 0 {
				t.Errorf("completion %+v, want one of the waker, still armed", c)
			}
		}
	})
	close(asleep)
}

func TestCancel(t *testing.T) {
	w, err := NewWaker()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	onRing(t, 8, SetupSQE128, func(r *Ring) {
		w.Arm(r, 1)
		s := r.Get()
		s.Cancel(1)
		s.UserData = 2
		for _, c := range collect(t, r, 2) {
			want := map[uint64]int32{1: -int32(unix.ECANCELED), 2: 0}[c.UserData]
			if c.Res != want {
				t.Errorf("request %d: %d, want %d", c.UserData, c.Res, want)
			}
		}
	})
}

func TestWaitEnds(t *testing.T) {
	onRing(t, 8, workerFlags, func(r *Ring) {
		if err := r.Wait(1, time.Millisecond); err != nil {
			t.Errorf("a wait that times out: %v", err)
		}
		// A signal storm, as the runtime's preemption makes them.
		stop, tid := make(chan struct{}), unix.Gettid()
		go func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = unix.Tgkill(unix.Getpid(), tid, unix.SIGURG)
				}
			}
		}()
		for i := range uint64(200) {
			s := r.Get()
			s.Nop()
			s.UserData = i
			if c := collect(t, r, 1)[0]; c.UserData != i {
				t.Errorf("completion %+v, want %d", c, i)
			}
		}
		close(stop)
	})
}

func TestForeignThread(t *testing.T) {
	onRing(t, 8, workerFlags, func(r *Ring) {
		refused := make(chan error)
		go func() {
			runtime.LockOSThread()
			r.Get().Nop()
			refused <- r.Submit()
		}()
		if err := <-refused; err == nil {
			t.Error("another thread may use the ring")
		}
	})
}

// TestTether: what a ring has in flight is cancelled on its thread when that ends, while others have its descriptor. A
// completion shows it: only the thread of such a ring puts them into the queue.
func TestTether(t *testing.T) {
	var r *Ring
	thread := Go(func() {
		var err error
		if r, err = Setup(8, 32, workerFlags); err == nil {
			err = r.Tether()
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err := thread.Wait(10 * time.Second); err != nil || t.Failed() {
		t.Fatal(err)
	}
	defer r.Close()
	var got [2]CQE
	if n := r.Reap(got[:]); n != 1 || got[0] != (CQE{Res: -int32(unix.ECANCELED)}) {
		t.Errorf("%d completions: %+v; want one that tells of the cancellation", n, got[:n])
	}
}
