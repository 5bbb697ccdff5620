package ublk

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
	"glidefs-appliance/backend/volume"
	"glidefs-appliance/frontends/frontendtest"
	"glidefs-appliance/frontends/ublk/uring"

	"golang.org/x/sys/unix"
)

const startTurns = 15

// TestBenchStart prints what START_DEV takes, which reads the partition table on most kernels: of a new disk, of one
// whose first blocks are in its log, and of a bare null target with as many queues and tags, in turns. Medians.
func TestBenchStart(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		s := openServer(t, zeroCopy)
		h := engine(t, stateDir(t), volume.Tuning{UploadAge: time.Hour})
		var null, fresh, local []time.Duration
		for turn := range startTurns {
			null = append(null, startNull(t, s))
			v := openVolume(t, h, fmt.Sprint("disk", turn), 64<<20, 4096)
			fresh = append(fresh, startDisk(t, s, v, writeFirst))
			local = append(local, startDisk(t, s, v, func(*testing.T, string) {}))
		}
		n, f, l := middle(null), middle(fresh), middle(local)
		fmt.Printf("START_DEV, %s: null target %v, new disk %v (%.2f times), first blocks in the log %v (%.2f times); must be <= 2\n",
			map[bool]string{true: sides[sideZero], false: sides[sideCopy]}[zeroCopy], n, f, float64(f)/float64(n), l, float64(l)/float64(n))
	})
}

// TestStartIsLocal: what the kernel reads of a new disk, or of one whose first blocks are in its log, while its device is
// started and searched for partitions is answered at once by a worker: no goroutine is asked, and not the store. What is in
// the store only has been fetched before.
func TestStartIsLocal(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		s, h, fault := openServer(t, zeroCopy), engine(t, stateDir(t), volume.Tuning{UploadAge: time.Hour}), storetest.NewFault(mem.New())
		behind(h, fault)
		v := openVolume(t, h, "disk", 64<<20, 4096)
		for _, what := range []string{"new disk", "first blocks in the log"} {
			before, asked := s.Stats(), fault.Count(store.OpGet)
			dev, err := s.Add(t.Context(), v.Name(), v, AddOptions{})
			if err != nil {
				t.Fatal(err)
			}
			after := s.Stats()
			if after.Inline == before.Inline || after.Deferred > before.Deferred || fault.Count(store.OpGet) > asked {
				t.Errorf("%s: %+v became %+v, and the store was asked %d times", what, before, after, fault.Count(store.OpGet)-asked)
			}
			writeFirst(t, dev.Path())
			if err := s.Remove(t.Context(), v.Name(), true); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func middle(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// startDisk serves a disk and returns what its START_DEV took.
func startDisk(t *testing.T, s *Server, v *volume.Volume, use func(t *testing.T, path string)) time.Duration {
	t.Helper()
	before := starts(s)
	dev, err := s.Add(t.Context(), v.Name(), v, AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	took := starts(s) - before
	use(t, dev.Path())
	if err := s.Remove(t.Context(), v.Name(), true); err != nil {
		t.Fatal(err)
	}
	return took
}

// writeFirst writes the first blocks of a block device.
func writeFirst(t *testing.T, path string) {
	f, p := openDirect(t, path), alignedBytes(t, 64<<10)
	defer f.Close()
	if _, err := f.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// starts is what START_DEV of all devices took so far.
func starts(s *Server) (total time.Duration) {
	for _, step := range s.took.list() {
		if step.Name == "start" {
			total = step.Total
		}
	}
	return total
}

// startNull times START_DEV of a device that does nothing: one thread answers all requests as they come.
func startNull(t *testing.T, s *Server) time.Duration {
	t.Helper()
	d := s.newDevice("null", 0, frontendtest.NewMemDisk(64<<20, 4096))
	info := d.wanted()
	info.Flags &^= flagZeroCopy | flagAutoBufReg
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(s.control.add(&info))
	check(d.granted(info))
	check(s.control.setParams(info.ID, d.params()))
	check(d.openChar(t.Context()))
	fetched, ended := make(chan error, 1), make(chan struct{})
	go serveNull(d, fetched, ended)
	check(<-fetched)
	began := time.Now()
	check(s.control.start(info.ID))
	took := time.Since(began)
	check(s.control.stop(info.ID))
	<-ended
	check(d.closeChar())
	check(s.control.del(info.ID))
	return took
}

// serveNull returns when the kernel has all tags back.
func serveNull(d *Device, fetched chan<- error, ended chan<- struct{}) {
	runtime.LockOSThread() // and never unlocked
	defer close(ended)
	ring, err := uring.Setup(sqEntries, cqEntries, uring.SetupSingleIssuer|uring.SetupDeferTaskrun|uring.SetupCoopTaskrun|uring.SetupSubmitAll)
	if err != nil {
		fetched <- err
		return
	}
	defer ring.Close()
	send := func(cmd uint32, queue, tag uint16, res int32) {
		s := ring.Get()
		s.Command(d.char, cmd, 0)
		s.UserData = uint64(queue)<<16 | uint64(tag)
		*(*ioCmd)(s.Payload()) = ioCmd{queue: queue, tag: tag, result: res}
	}
	left := 0
	for q := range d.info.Queues {
		for tag := range d.info.Depth {
			send(cmdFetch, q, tag, 0)
			left++
		}
	}
	fetched <- ring.Submit()
	for left > 0 {
		if ring.Wait(1, -1) != nil {
			return
		}
		var cqes [64]uring.CQE
		for _, c := range cqes[:ring.Reap(cqes[:])] {
			if c.Res == -int32(unix.ENODEV) {
				left--
				continue
			}
			queue, tag := uint16(c.UserData>>16), uint16(c.UserData)
			send(cmdCommitAndFetch, queue, tag, int32(d.desc(queue, tag).sectors)<<sectorShift)
		}
	}
}
