package appliance

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// linger is how long a daemon that has never had a disk waits for the next client: scripts run `ls` more than once.
const linger = 200 * time.Millisecond

// life decides when a daemon ends by itself: nothing is attached, and no client is connected. Once it has decided, the
// server answers every new request with 503, and the client starts another daemon. A client that has a connection keeps
// the daemon: between two requests of one command it does not go away.
type life struct {
	idle func() (attached int, ever bool)
	// keep: serve until a signal comes.
	keep bool
	// done is closed when the daemon is to end.
	done chan struct{}

	mu struct {
		sync.Mutex
		clients int
		working bool // disks of the last daemon are being opened
		ending  bool
		timer   *time.Timer
	}
}

func newLife(keep bool, idle func() (int, bool)) *life {
	l := &life{idle: idle, keep: keep, done: make(chan struct{})}
	l.mu.working = true
	return l
}

// connection is the http.Server's ConnState hook.
func (l *life) connection(_ net.Conn, s http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch s {
	case http.StateNew:
		l.mu.clients++
	case http.StateClosed, http.StateHijacked:
		l.mu.clients--
		l.considerLocked()
	}
}

// restored says that the disks of the last daemon are open.
func (l *life) restored() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.working = false
	l.considerLocked()
}

// considerLocked ends the daemon now, or in a moment, when nobody needs it. (life.mu, then Manager.mu inside idle.)
func (l *life) considerLocked() {
	if l.keep || l.mu.working || l.mu.clients > 0 || l.mu.ending {
		return
	}
	n, ever := l.idle()
	switch {
	case n > 0:
	case ever:
		l.endLocked()
	case l.mu.timer == nil:
		l.mu.timer = time.AfterFunc(linger, l.lingered)
	}
}

func (l *life) lingered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.timer = nil
	if n, _ := l.idle(); n == 0 && l.mu.clients == 0 {
		l.endLocked()
	}
}

func (l *life) endLocked() {
	if !l.mu.ending {
		l.mu.ending = true
		close(l.done)
	}
}

// end is for signals.
func (l *life) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endLocked()
}

// ending tells whether a request comes too late.
func (l *life) ending() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.ending
}
