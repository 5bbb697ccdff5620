package uring

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Thread is an OS thread that runs one function and ends.
type Thread struct {
	id   int
	done chan struct{} // the function
}

// Go starts one.
func Go(fn func()) *Thread {
	t := &Thread{done: make(chan struct{})}
	go t.run(fn)
	return t
}

func (t *Thread) run(fn func()) {
	runtime.LockOSThread() // and never unlocked: the thread ends
	if t.id = unix.Gettid(); t.id != unix.Getpid() {
		defer close(t.done)
		fn()
		return
	}
	go t.run(fn) // the first thread of a process lasts as long as that: keep it until another one has run fn
	<-t.done
	runtime.UnlockOSThread()
}

// Returned waits until the function has; the thread may be there still.
func (t *Thread) Returned() { <-t.done }

// Wait until the function has returned, and then until the thread is gone, which takes as long as the kernel needs to
// cancel what is in flight, at most limit.
func (t *Thread) Wait(limit time.Duration) error {
	<-t.done
	for end := time.Now().Add(limit); unix.Tgkill(unix.Getpid(), t.id, 0) != unix.ESRCH; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("thread %d does not end", t.id)
		}
	}
	return nil
}
