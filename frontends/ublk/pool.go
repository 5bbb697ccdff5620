package ublk

import (
	"glidefs-appliance/frontends/ublk/uring"

	"golang.org/x/sys/unix"
)

const bufferBytes = 128 << 10

// pool holds the buffers of one worker, through which requests are copied. Only the worker's thread touches it; the
// memory becomes resident as it is used. Who finds it empty waits, first come first served. Requests that may be long
// (they wait for the object store or for room in the log) never get the last of them, so that they don't hold up those
// that are served at once.
type pool struct {
	mem   []byte
	free  []int32 // indexes
	keep  int     // for the short ones
	short fifo
	long  fifo
}

const noBuffer = -1

func newPool(buffers int) (*pool, error) {
	mem, err := uring.Map(buffers * bufferBytes)
	if err != nil {
		return nil, err
	}
	p := &pool{mem: mem, keep: (buffers + 1) / 2}
	for i := buffers - 1; i >= 0; i-- {
		p.free = append(p.free, int32(i))
	}
	return p, nil
}

func (p *pool) close() { _ = unix.Munmap(p.mem) }

func (p *pool) bytes(i int32) []byte { return p.mem[int(i)*bufferBytes:][:bufferBytes:bufferBytes] }

// take gives r a buffer, or queues it.
func (p *pool) take(r *request, long bool) bool {
	q, least := &p.short, 1
	if long {
		q, least = &p.long, 1+p.keep
	}
	if q.empty() && len(p.free) >= least {
		p.grant(r)
		return true
	}
	q.push(r)
	return false
}

func (p *pool) grant(r *request) {
	last := len(p.free) - 1
	r.buf = p.free[last]
	p.free = p.free[:last]
}

// put takes r's buffer back, if it has one.
func (p *pool) put(r *request) {
	if r.buf != noBuffer {
		p.free = append(p.free, r.buf)
		r.buf = noBuffer
	}
}

// next returns a request that waited and has a buffer now; nil when there is none.
func (p *pool) next() *request {
	var r *request
	switch {
	case len(p.free) > 0 && !p.short.empty():
		r = p.short.pop()
	case len(p.free) > p.keep && !p.long.empty():
		r = p.long.pop()
	default:
		return nil
	}
	p.grant(r)
	return r
}

// fifo is a queue of requests, linked through them.
type fifo struct{ head, tail *request }

func (q *fifo) empty() bool { return q.head == nil }

func (q *fifo) push(r *request) {
	if q.head == nil {
		q.head = r
	} else {
		q.tail.next = r
	}
	q.tail = r
}

func (q *fifo) pop() *request {
	r := q.head
	q.head, r.next = r.next, nil
	return r
}
