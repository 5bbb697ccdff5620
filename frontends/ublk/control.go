package ublk

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"glidefs-appliance/frontends/ublk/uring"

	"golang.org/x/sys/unix"
)

const controlPath = "/dev/ublk-control"

// errStuck: a control command ended neither by its deadline nor after its cancellation.
var errStuck = errors.New("the kernel did not answer in time")

const (
	controlSlots = 64  // commands in flight
	slotBytes    = 256 // of memory for a command's buffer
	cancelGrace  = 5 * time.Second

	tagWake   = 1 << 32 // user data beyond any slot's
	tagCancel = 1<<32 + 1
)

// control sends the control commands of all devices: one ring on one thread for the life of the server. A ring for each
// device would meet kernels (6.18.10 to 7.2) that lose a command given to an idle io-wq worker.
type control struct {
	fd    int
	waker *uring.Waker
	ended chan struct{} // closed by the thread

	mu     sync.Mutex
	queue  []*call // sent by nobody yet
	closed bool
}

// call is one command on its way.
type call struct {
	op    uint32
	dev   uint32
	queue uint16
	data  uint64
	buf   []byte // what the kernel reads and writes, at most slotBytes
	limit time.Duration

	deadline  time.Time
	cancelled bool
	abandoned bool // its caller is gone; the slot stays taken until the kernel lets go
	res       int32
	err       error
	done      chan struct{}
}

// openControl starts the control thread. Errors say what is missing on this host.
func openControl() (*control, error) {
	fd, err := unix.Open(controlPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", controlPath, err)
	}
	w, err := uring.NewWaker()
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	c := &control{fd: fd, waker: w, ended: make(chan struct{})}
	up := make(chan error)
	go c.thread(up)
	if err := <-up; err != nil {
		return nil, errors.Join(err, w.Close(), unix.Close(fd))
	}
	return c, nil
}

// close ends the thread. Commands in flight get errStuck.
func (c *control) close() error {
	c.mu.Lock()
	c.closed = true
	c.waker.Wake()
	c.mu.Unlock()
	<-c.ended
	return errors.Join(c.waker.Close(), unix.Close(c.fd))
}

// do sends a command and waits for its result, at most cl.limit and cancelGrace. Kernel errors are unix.Errno.
func (c *control) do(cl *call) error {
	cl.done = make(chan struct{})
	cl.deadline = time.Now().Add(cl.limit)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return errStuck
	}
	c.queue = append(c.queue, cl)
	c.waker.Wake() // under mu: the waker outlives closed
	c.mu.Unlock()
	<-cl.done
	if cl.err == nil && cl.res < 0 {
		return unix.Errno(-cl.res)
	}
	return cl.err
}

// flights is the thread's own: the commands that the kernel has.
type flights struct {
	c     *control
	ring  *uring.Ring
	arena []byte
	calls [controlSlots]*call
}

func (c *control) thread(up chan<- error) {
	runtime.LockOSThread() // and never unlocked: the thread ends with its ring
	defer close(c.ended)
	blockPreemption()
	ring, err := uring.Setup(2*controlSlots, 4*controlSlots, uring.SetupSQE128|uring.SetupSubmitAll)
	if err != nil {
		up <- err
		return
	}
	arena, err := uring.Map(controlSlots * slotBytes)
	if err != nil {
		up <- errors.Join(err, ring.Close())
		return
	}
	up <- nil
	f := &flights{c: c, ring: ring, arena: arena}
	c.waker.Arm(ring, tagWake)
	for f.turn() {
	}
	f.end()
}

// blockPreemption keeps the runtime's signals from this thread: up to 6.18 the kernel gives up making an io-wq worker
// after three interruptions, and the command is never run.
func blockPreemption() {
	var set unix.Sigset_t
	set.Val[0] = 1 << (unix.SIGURG - 1)
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil)
}

// turn starts what is queued, waits, and finishes what is done or late; false when the control is closed.
func (f *flights) turn() bool {
	f.c.waker.Sleep()
	open := f.start()
	if !open {
		return false
	}
	if err := f.ring.Wait(1, f.patience()); err != nil {
		panic(fmt.Sprintf("ublk control: %v", err))
	}
	f.c.waker.Awake()
	var cqes [16]uring.CQE
	for n := f.ring.Reap(cqes[:]); n > 0; n = f.ring.Reap(cqes[:]) {
		for _, cqe := range cqes[:n] {
			f.complete(cqe)
		}
	}
	f.expire(time.Now())
	return true
}

// start sends queued commands while there are slots. What finds none waits for one until its deadline.
func (f *flights) start() (open bool) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	q := f.c.queue
	for slot := 0; slot < controlSlots && len(q) > 0; slot++ {
		if f.calls[slot] == nil {
			f.send(slot, q[0])
			q[0], q = nil, q[1:]
		}
	}
	f.c.queue = q
	return !f.c.closed
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
}

func (f *flights) complete(cqe uring.CQE) {
	switch {
	case cqe.UserData == tagWake:
		if cqe.Flags&uring.FlagMore == 0 {
			f.c.waker.Arm(f.ring, tagWake)
		}
	case cqe.UserData < controlSlots:
		cl := f.calls[cqe.UserData]
		f.calls[cqe.UserData] = nil
		if cl.abandoned {
			return
		}
		copy(cl.buf, f.arena[cqe.UserData*slotBytes:][:slotBytes])
		if cl.res = cqe.Res; cl.cancelled && cl.res < 0 {
			cl.err = errStuck
		}
		close(cl.done)
	}
}

// expire cancels what is late, and lets the callers of what even that did not end go.
func (f *flights) expire(now time.Time) {
	for slot, cl := range f.calls {
		if cl == nil || cl.abandoned || now.Before(cl.deadline) {
			continue
		}
		if cl.cancelled {
			cl.abandoned, cl.err = true, errStuck
			close(cl.done)
			continue
		}
		cl.cancelled, cl.deadline = true, now.Add(cancelGrace)
		s := f.ring.Get()
		s.Cancel(uint64(slot))
		s.UserData = tagCancel
	}
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
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
	for _, cl := range f.c.queue {
		sooner(cl)
	}
	return next
}

// end lets all callers go. The arena stays if the kernel may still write to it.
func (f *flights) end() {
	f.c.mu.Lock()
	left := f.c.queue
	f.c.queue = nil
	f.c.mu.Unlock()
	busy := false
	for _, cl := range f.calls {
		if cl != nil {
			busy = true
			left = append(left, cl)
		}
	}
	for _, cl := range left {
		if !cl.abandoned {
			cl.err = errStuck
			close(cl.done)
		}
	}
	_ = f.ring.Close()
	if !busy {
		_ = unix.Munmap(f.arena)
	}
}
