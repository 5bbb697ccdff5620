package uring

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Waker ends a Wait of its ring from any goroutine.
//
//	owner                          others
//	Sleep                          hand over work
//	look for work: none?           Wake: writes only to a sleeper
//	Wait
//	Awake
//
// Whoever hands over work after the owner looked finds it asleep, so no wake-up is lost.
type Waker struct {
	fd       int
	sleeping atomic.Bool
}

// NewWaker makes one; Arm ties it to a ring.
func NewWaker() (*Waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return &Waker{fd: fd}, nil
}

// Arm makes wake-ups complete on r with that user data. Called again when a completion lacks FlagMore.
func (w *Waker) Arm(r *Ring, userData uint64) {
	s := r.Get()
	s.Poll(w.fd, unix.POLLIN)
	s.UserData = userData
}

// Sleep announces that the owner is about to Wait.
func (w *Waker) Sleep() { w.sleeping.Store(true) }

// Awake takes that back.
func (w *Waker) Awake() { w.sleeping.Store(false) }

// Wake ends the owner's Wait, if it is in one.
func (w *Waker) Wake() {
	if !w.sleeping.Load() || !w.sleeping.CompareAndSwap(true, false) {
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	for {
		// EAGAIN: the counter is full, so the poll has fired already.
		if _, err := unix.Write(w.fd, one[:]); err != unix.EINTR {
			return
		}
	}
}

// Close frees the descriptor; the ring is closed before.
func (w *Waker) Close() error { return unix.Close(w.fd) }
