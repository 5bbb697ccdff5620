package fuse

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// request is the context of one FUSE request. Nearly all end without anybody asking for Done, so the goroutine that
// watches the caller starts only then. It is not reused: a Disk may pass it on to goroutines that outlive the call.
type request struct {
	cancel <-chan struct{} // closed by go-fuse on INTERRUPT and when the connection dies
	quit   <-chan struct{} // closed when the export is evicted
	pid    uint32          // thread id of the caller; 0 if our pid namespace does not see it

	mu       sync.Mutex
	done     chan struct{}
	finished chan struct{} // what the watcher also waits for
}

var _ context.Context = (*request)(nil)

func (r *request) Deadline() (time.Time, bool) { return time.Time{}, false }
func (r *request) Value(any) any               { return nil }

// Done is closed when the request should stop waiting: its export is evicted, or it was interrupted and its caller is
// dying. A caller that merely got a signal keeps waiting, as on a disk; one that is killed must not stay in D state
// for as long as the log is full.
func (r *request) Done() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done == nil {
		r.done, r.finished = make(chan struct{}), make(chan struct{})
		go r.watch(r.done, r.finished)
	}
	return r.done
}

func (r *request) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.done:
		return context.Canceled
	default:
		return nil
	}
}

// finish is called once the operation has returned; the context is cancelled from then on if anybody has asked for it.
func (r *request) finish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.finished != nil {
		close(r.finished)
	}
}

func (r *request) watch(done chan<- struct{}, finished <-chan struct{}) {
	defer close(done)
	select {
	case <-finished:
		return
	case <-r.quit:
		return
	case <-r.cancel:
	}
	// The kernel sends one INTERRUPT for the first signal and none for a later SIGKILL.
	poll := time.NewTicker(callerPoll)
	defer poll.Stop()
	for !dying(r.pid) {
		select {
		case <-finished:
			return
		case <-r.quit:
			return
		case <-poll.C:
		}
	}
}

const callerPoll = 100 * time.Millisecond

// dying tells whether a thread has SIGKILL pending, which is what the kernel turns every fatal signal into (those that
// dump core excepted, and for these it does not let go of a FUSE request either). One that is gone or cannot be seen
// counts as dying.
func dying(tid uint32) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return true
	}
	_, rest, _ := bytes.Cut(status, []byte("\nSigPnd:\t"))
	mask, _, _ := bytes.Cut(rest, []byte("\n"))
	pending, err := strconv.ParseUint(string(mask), 16, 64)
	const sigkill = 1 << (9 - 1)
	return err != nil || pending&sigkill != 0
}
