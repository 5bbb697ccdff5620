package ublk

import (
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"glidefs-appliance/frontends/ublk/uring"

	"golang.org/x/sys/unix"
)

const (
	controlSlots = 64  // commands in flight on one ring
	slotBytes    = 256 // of memory for a command's buffer

	tagWake    = 1 << 32 // user data beyond any slot's
	tagIgnored = 1<<32 + 1
)

// flights are the commands that the kernel has through one ring. All but the waker and retired belongs to its thread.
type flights struct {
	c     *control
	waker *uring.Waker
	ring  *uring.Ring
	arena []byte
	calls [controlSlots]*call
	lost  bool // a command since the last turn

	retired bool // another ring leads now; guarded by control.mu
}

func (f *flights) thread(up chan<- error) {
	runtime.LockOSThread() // and never unlocked: the thread ends with its ring
	blockPreemption()
	err := f.open()
	up <- err
	if err == nil {
		f.waker.Arm(f.ring, tagWake)
		for f.turn() {
		}
		f.end()
	}
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	delete(f.c.rings, f)
	_ = f.waker.Close() // under mu: nobody wakes it any more
}

func (f *flights) open() (err error) {
	if f.ring, err = uring.Setup(2*controlSlots, 4*controlSlots, uring.SetupSQE128|uring.SetupSubmitAll); err != nil {
		return err
	}
	if f.arena, err = uring.Map(controlSlots * slotBytes); err != nil {
		return errors.Join(err, f.ring.Close())
	}
	return nil
}

// blockPreemption keeps the runtime's signals from this thread: up to 6.18 the kernel gives up making an io-wq worker
// after three interruptions, and the command is never run.
func blockPreemption() {
	var set unix.Sigset_t
	set.Val[0] = 1 << (unix.SIGURG - 1)
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil)
}

// turn starts what is queued, waits, and finishes what is done or late; false when this ring has nothing left to do.
func (f *flights) turn() bool {
	f.waker.Sleep()
	if !f.start() {
		return false
	}
	if err := f.ring.Wait(1, f.patience()); err != nil {
		panic(fmt.Sprintf("ublk control: %v", err))
	}
	f.waker.Awake()
	var cqes [16]uring.CQE
	for n := f.ring.Reap(cqes[:]); n > 0; n = f.ring.Reap(cqes[:]) {
		for _, cqe := range cqes[:n] {
			f.complete(cqe)
		}
	}
	f.expire(time.Now())
	if f.lost {
		f.lost = false
		f.c.succeed(f)
	}
	return true
}

// start sends queued commands while there are slots. What finds none waits for one until its deadline. A retired ring
// goes on while it has commands in flight, a new one until it leads.
func (f *flights) start() (goOn bool) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	switch {
	case f.c.closed:
		return false
	case f.retired:
		return f.busy()
	case f.c.lead != f:
		return true
	}
	q := f.c.queue
	for slot := 0; slot < controlSlots && len(q) > 0; slot++ {
		if f.calls[slot] == nil {
			f.send(slot, q[0])
			q[0], q = nil, q[1:]
		}
	}
	f.c.queue = q
	return true
}

func (f *flights) busy() bool {
	for _, cl := range f.calls {
		if cl != nil {
			return true
		}
	}
	return false
}

func (f *flights) send(slot int, cl *call) {
	f.calls[slot] = cl
	mem := f.arena[slot*slotBytes:][:slotBytes]
	copy(mem, cl.buf)
	s := f.ring.Get()
	s.Command(f.c.fd, cl.op, 0)
	s.UserData = uint64(slot)
	cmd := (*ctrlCmd)(s.Payload())
	*cmd = ctrlCmd{devID: cl.dev, queueID: cl.queue, data: cl.data}
	if len(cl.buf) > 0 {
		cmd.addr, cmd.len = uint64(uintptr(unsafe.Pointer(&mem[0]))), uint16(len(cl.buf))
	}
	if f.c.tamper != nil {
		f.c.tamper(s, cl)
	}
}

func (f *flights) complete(cqe uring.CQE) {
	switch {
	case cqe.UserData == tagWake:
		if cqe.Flags&uring.FlagMore == 0 {
			f.waker.Arm(f.ring, tagWake)
		}
	case cqe.UserData < controlSlots:
		cl, mem := f.calls[cqe.UserData], f.arena[cqe.UserData*slotBytes:][:slotBytes]
		f.calls[cqe.UserData] = nil
		if !cl.abandoned {
			f.finish(cl, cqe.Res, mem)
		} else if cl.late != nil && cqe.Res >= 0 {
			cl.late(mem)
		}
	}
}

// finish hands the result to who waits for it. ECANCELED after a cancellation: no worker of the kernel had taken the
// command; EINTR: one had.
func (f *flights) finish(cl *call, res int32, mem []byte) {
	copy(cl.buf, mem)
	if cl.res = res; cl.cancelled && res < 0 {
		cl.err = errStuck
		f.lost = f.lost || res == -int32(unix.ECANCELED)
	}
	close(cl.done)
}

// expire cancels what is late, and lets the callers of what even that did not end go.
func (f *flights) expire(now time.Time) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	for slot, cl := range f.calls {
		if cl == nil || cl.abandoned || now.Before(cl.deadline) {
			continue
		}
		if cl.cancelled {
			cl.abandoned, f.lost, cl.err = true, true, errStuck
			close(cl.done)
			continue
		}
		cl.cancelled, cl.deadline = true, now.Add(f.c.grace)
		s := f.ring.Get()
		s.Cancel(uint64(slot))
		s.UserData = tagIgnored
	}
	if f.c.lead != f {
		return
	}
	late := 0
	for late < len(f.c.queue) && !now.Before(f.c.queue[late].deadline) {
		f.c.queue[late].err = errStuck
		close(f.c.queue[late].done)
		late++
	}
	f.c.queue = f.c.queue[late:]
}

// patience is how long to wait for completions: until the next deadline.
func (f *flights) patience() time.Duration {
	next := time.Duration(-1)
	sooner := func(cl *call) {
		if d := max(0, time.Until(cl.deadline)); next < 0 || d < next {
			next = d
		}
	}
	for _, cl := range f.calls {
		if cl != nil && !cl.abandoned {
			sooner(cl)
		}
	}
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if f.c.lead == f {
		for _, cl := range f.c.queue {
			sooner(cl)
		}
	}
	return next
}

// end lets all callers go. The arena stays if the kernel may still write to it.
func (f *flights) end() {
	f.c.mu.Lock()
	var left []*call
	if f.c.closed {
		left, f.c.queue = f.c.queue, nil
	}
	f.c.mu.Unlock()
	busy := f.busy()
	for _, cl := range append(left, f.calls[:]...) {
		if cl != nil && !cl.abandoned {
			cl.err = errStuck
			close(cl.done)
		}
	}
	_ = f.ring.Close()
	if !busy {
		_ = unix.Munmap(f.arena)
	}
}
