package ublk

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"glidefs-appliance/frontends/ublk/uring"

	"golang.org/x/sys/unix"
)

const controlPath = "/dev/ublk-control"

// errStuck: a control command ended neither by its deadline nor after its cancellation, or the kernel never ran it.
var errStuck = errors.New("the kernel did not answer in time")

const (
	cancelGrace = 5 * time.Second
	// maxRings at the same time: the leading one and those that wait for what they lost.
	maxRings = 4
)

// control sends the control commands of all devices.
//
//	do ──► queue ──► leading ring ──► kernel ──► complete ──► do returns
//	                    │ by the deadline: ASYNC_CANCEL, and errStuck
//	                    │ never run, or deaf to the cancellation: the ring has lost it
//	                    ▼
//	                 retired: ends what it has in flight, while a new ring on a new thread leads
//
// There is one ring for all devices and for the life of the server, because kernels from 6.18.10 to 7.2 lose commands that
// are given to a fresh io-wq worker; and another one when it happened all the same. io-wq belongs to a thread, so the
// new ring has one of its own.
type control struct {
	fd    int
	grace time.Duration // for a cancellation
	log   *slog.Logger
	// tamper is nil, or a test's that changes what is sent.
	tamper func(*uring.SQE, *call)

	threads sync.WaitGroup
	mu      sync.Mutex
	queue   []*call           // sent by nobody yet
	lead    *flights          // sends them
	rings   map[*flights]bool // all that have a thread; its wakers are open
	closed  bool
}

// call is one command on its way.
type call struct {
	op    uint32
	dev   uint32
	queue uint16
	data  uint64
	buf   []byte // what the kernel reads and writes, at most slotBytes
	limit time.Duration
	// late is told that the kernel has done it after do had given up. It runs on the ring's thread; nil: nobody cares.
	late func(buf []byte)

	deadline  time.Time
	cancelled bool
	abandoned bool // its caller is gone; the slot stays taken until the kernel lets go
	res       int32
	err       error
	done      chan struct{}
}

// openControl starts the control thread. Errors say what is missing on this host.
func openControl(log *slog.Logger) (*control, error) {
	fd, err := unix.Open(controlPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", controlPath, err)
	}
	c, err := newControl(fd, log)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return c, nil
}

// newControl sends commands to fd, which it closes in the end.
func newControl(fd int, log *slog.Logger) (*control, error) {
	c := &control{fd: fd, grace: cancelGrace, log: log, rings: map[*flights]bool{}}
	f, err := c.ring()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lead = f
	return c, nil
}

// ring starts a thread with a ring. It leads once control.lead says so.
func (c *control) ring() (*flights, error) {
	w, err := uring.NewWaker()
	if err != nil {
		return nil, err
	}
	f := &flights{c: c, waker: w}
	c.mu.Lock()
	c.rings[f] = true
	c.mu.Unlock()
	up := make(chan error)
	c.threads.Go(func() { f.thread(up) })
	return f, <-up
}

// close ends the threads. Commands in flight get errStuck.
func (c *control) close() error {
	c.mu.Lock()
	c.closed = true
	for f := range c.rings {
		f.waker.Wake()
	}
	c.mu.Unlock()
	c.threads.Wait()
	return unix.Close(c.fd)
}

// do sends a command and waits for its result, at most cl.limit and the grace of a cancellation. Kernel errors are
// unix.Errno.
func (c *control) do(cl *call) error {
	cl.done = make(chan struct{})
	cl.deadline = time.Now().Add(cl.limit)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return errStuck
	}
	c.queue = append(c.queue, cl)
	c.lead.waker.Wake() // under mu: the waker outlives closed
	c.mu.Unlock()
	<-cl.done
	if cl.err == nil && cl.res < 0 {
		return unix.Errno(-cl.res)
	}
	return cl.err
}

// succeed has a new ring lead after one that lost a command. It runs on that one's thread, and does nothing when there
// are as many as there may be: then the commands that follow share its fate.
func (c *control) succeed(old *flights) {
	c.mu.Lock()
	enough := c.closed || old.retired || len(c.rings) >= maxRings
	c.mu.Unlock()
	if enough {
		return
	}
	f, err := c.ring()
	if err != nil {
		c.log.Error("ublk: no new ring for control commands", "err", err)
		return
	}
	c.log.Warn("ublk: the kernel has lost a control command; another ring takes over")
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.lead, old.retired = f, true
		f.waker.Wake()
	}
}
