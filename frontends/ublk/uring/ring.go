package uring

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ring is a pair of queues shared with the kernel.
type Ring struct {
	fd      int
	mem     [][]byte // mappings
	noWait  uintptr  // enter flag that keeps an idle ring from counting as iowait, where the kernel has it
	sqeSize uintptr
	sqes    unsafe.Pointer

	// head <= published <= tail <= head + entries
	head      *uint32 // kernel's
	published *uint32
	tail      uint32 // SQEs given out
	mask      uint32

	cqHead, cqTail *uint32
	cqMask         uint32
	cqes           []CQE

	arg    *waitArg
	tether int // see Tether; -1: none
	enters atomic.Uint64
}

// waitArg is what Wait hands to the kernel, in memory that does not move.
type waitArg struct {
	getEventsArg
	timespec
}

// Setup makes a ring for entries SQEs and cqEntries completions (SetupCQSize is implied). unix.EPERM means that
// kernel.io_uring_disabled or a seccomp filter forbids it, EINVAL that the kernel lacks one of the flags.
func Setup(entries, cqEntries int, flags uint32) (*Ring, error) {
	p := params{flags: flags | SetupCQSize | SetupClamp, cqEntries: uint32(cqEntries)}
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	if e != 0 {
		return nil, fmt.Errorf("io_uring_setup(%d, flags %#x): %w", entries, p.flags, e)
	}
	r := &Ring{fd: int(fd), tether: -1, sqeSize: unsafe.Sizeof(SQE{})}
	unix.CloseOnExec(r.fd)
	if err := r.mapQueues(&p); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Ring) mapQueues(p *params) error {
	if p.features&featSingleMmap == 0 || p.features&featExtArg == 0 {
		return fmt.Errorf("io_uring: %w: features %#x", errors.ErrUnsupported, p.features)
	}
	if p.features&featNoIOWait != 0 {
		r.noWait = enterNoIOWait
	}
	if p.flags&SetupSQE128 != 0 {
		r.sqeSize *= 2
	}
	size := max(uintptr(p.sq.array)+uintptr(p.sqEntries)*4, uintptr(p.cq.cqes)+uintptr(p.cqEntries)*unsafe.Sizeof(CQE{}))
	rings, err := r.mmap(offSQRing, int(size))
	if err != nil {
		return err
	}
	sqes, err := r.mmap(offSQEs, int(uintptr(p.sqEntries)*r.sqeSize))
	if err != nil {
		return err
	}
	arg, err := Map(int(unsafe.Sizeof(waitArg{})))
	if err != nil {
		return err
	}
	r.mem = append(r.mem, arg)
	word := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&rings[off])) }
	r.sqes, r.arg = unsafe.Pointer(&sqes[0]), (*waitArg)(unsafe.Pointer(&arg[0]))
	r.head, r.published, r.mask = word(p.sq.head), word(p.sq.tail), *word(p.sq.ringMask)
	r.cqHead, r.cqTail, r.cqMask = word(p.cq.head), word(p.cq.tail), *word(p.cq.ringMask)
	r.cqes = unsafe.Slice((*CQE)(unsafe.Pointer(&rings[p.cq.cqes])), p.cqEntries)
	array := unsafe.Slice(word(p.sq.array), p.sqEntries)
	for i := range array {
		array[i] = uint32(i)
	}
	return nil
}

func (r *Ring) mmap(off int64, size int) ([]byte, error) {
	b, err := unix.Mmap(r.fd, off, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map io_uring at %#x: %w", off, err)
	}
	r.mem = append(r.mem, b)
	return b, nil
}

// Map returns zeroed memory that neither moves nor is seen by the garbage collector; unix.Munmap gives it back. Nothing
// of it is resident before its first use.
func Map(size int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	return b, nil
}

// Close gives the ring up. The kernel cancels what is in flight, after the call has returned.
func (r *Ring) Close() error {
	var errs []error
	for _, m := range r.mem {
		errs = append(errs, unix.Munmap(m))
	}
	if r.mem = nil; r.tether >= 0 {
		errs = append(errs, unix.Close(r.tether))
	}
	return errors.Join(append(errs, unix.Close(r.fd))...)
}

// Tether has the kernel cancel what is in flight on the ring's thread when that ends, be it killed, and not by the side
// after the ring's last descriptor is gone. The latter may never end on 6.17 (7.3 has learned it): with SetupDeferTaskrun
// it takes in the thread's work once, then cancels commands until there are none; one whose request comes in between can
// be neither cancelled nor taken in (io_ring_exit_work), so that its file is never let go of and a kernel thread runs at
// full speed.
//
// A thread that ends cancels only if the file of a request in flight is a ring: such could keep each other alive. So one
// waits here, for what never comes. It completes with user data 0.
func (r *Ring) Tether() error {
	p := params{}
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&p)), 0)
	if e != 0 {
		return fmt.Errorf("io_uring_setup for a tether: %w", e)
	}
	r.tether = int(fd)
	unix.CloseOnExec(r.tether)
	r.Get().Poll(r.tether, unix.POLLPRI)
	return r.Submit()
}

// Get returns a cleared SQE, which goes to the kernel with the next Submit or Wait. A full queue is submitted first.
func (r *Ring) Get() *SQE {
	for r.tail-atomic.LoadUint32(r.head) > r.mask {
		if err := r.Submit(); err != nil {
			panic(fmt.Sprintf("uring: submit: %v", err))
		}
	}
	s := (*SQE)(unsafe.Add(r.sqes, uintptr(r.tail&r.mask)*r.sqeSize))
	clear(unsafe.Slice((*byte)(unsafe.Pointer(s)), r.sqeSize))
	r.tail++
	return s
}

// Room makes sure that the next n SQEs go to the kernel together.
func (r *Ring) Room(n uint32) {
	if r.tail-atomic.LoadUint32(r.head)+n > r.mask+1 {
		if err := r.Submit(); err != nil {
			panic(fmt.Sprintf("uring: submit: %v", err))
		}
	}
}

// Submit hands the SQEs to the kernel. It may block where the file of a request does not support IO without blocking.
func (r *Ring) Submit() error {
	for {
		err := r.enter(0, 0, nil)
		if err != nil || r.tail == atomic.LoadUint32(r.head) {
			return err
		}
	}
}

// Wait submits, and returns once n completions are there, after timeout (negative: none), or early when a signal came.
// The caller reaps and calls again in any case.
func (r *Ring) Wait(n int, timeout time.Duration) error {
	if r.cqReady() {
		return r.enter(0, enterGetEvents, nil)
	}
	if timeout >= 0 {
		r.arg.timespec = timespec{int64(timeout / time.Second), int64(timeout % time.Second)}
		r.arg.ts = uint64(uintptr(unsafe.Pointer(&r.arg.timespec)))
		return r.enter(uintptr(n), enterGetEvents|r.noWait, r.arg)
	}
	return r.enter(uintptr(n), enterGetEvents|r.noWait, nil)
}

// enter counts what is to be submitted from the kernel's head, so that a partial submission repairs itself.
func (r *Ring) enter(minComplete, flags uintptr, arg *waitArg) error {
	atomic.StoreUint32(r.published, r.tail)
	submit := uintptr(r.tail - atomic.LoadUint32(r.head))
	if submit == 0 && flags&enterGetEvents == 0 {
		return nil
	}
	var argp, size uintptr
	if arg != nil {
		argp, size, flags = uintptr(unsafe.Pointer(arg)), unsafe.Sizeof(getEventsArg{}), flags|enterExtArg
	}
	r.enters.Add(1)
	_, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), submit, minComplete, flags, argp, size)
	switch e {
	// EAGAIN, EBUSY: short of memory or of room for completions; both pass when the caller has reaped.
	case 0, unix.EINTR, unix.ETIME, unix.EAGAIN, unix.EBUSY:
		return nil
	}
	return fmt.Errorf("io_uring_enter: %w", e)
}

// Enters counts the calls of io_uring_enter. Any thread may ask.
func (r *Ring) Enters() uint64 { return r.enters.Load() }

func (r *Ring) cqReady() bool { return atomic.LoadUint32(r.cqTail) != *r.cqHead }

// Reap takes completions off the queue, as many as dst holds.
func (r *Ring) Reap(dst []CQE) int {
	head, tail := *r.cqHead, atomic.LoadUint32(r.cqTail)
	n := 0
	for ; n < len(dst) && head != tail; n, head = n+1, head+1 {
		dst[n] = r.cqes[head&r.cqMask]
	}
	atomic.StoreUint32(r.cqHead, head)
	return n
}

// RegisterSparse gives the ring a table of n empty buffer slots, at most 16384.
func (r *Ring) RegisterSparse(n int) error {
	reg := rsrcRegister{nr: uint32(n), flags: rsrcSparse}
	_, _, e := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), registerBuffers2,
		uintptr(unsafe.Pointer(&reg)), unsafe.Sizeof(reg), 0, 0)
	if e != 0 {
		return fmt.Errorf("register %d buffer slots: %w", n, e)
	}
	return nil
}
