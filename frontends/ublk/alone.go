package ublk

import (
	"sync/atomic"
	"unsafe"

	"glidefs-appliance/frontends/ublk/uring"
)

// A read that comes alone is started, answered and followed in one turn. The kernel does it all:
//
//	READ_FIXED ──► READ of /dev/zero into the flag ──► COMMIT_AND_FETCH: the tag's next request
//
// each linked to the one before, and none but the last with a completion unless it fails. The flag tells when the files
// of the read's plan are not needed any more, which without a completion nobody else does. It costs about what a turn
// does, so it is for a read that has a turn for itself; others share theirs.
type alone struct {
	mem []byte   // the flag: not 0 from the start of the read to its end
	req *request // whose plan is held
}

const flagBytes = 4

func (a *alone) open() (err error) {
	a.mem, err = uring.Map(flagBytes)
	return err
}

func (a *alone) flag() *uint32 { return (*uint32)(unsafe.Pointer(&a.mem[0])) }

// comesAlone tells whether the running turn began with this read, when nothing was going on.
func (w *worker) comesAlone() bool {
	return w.alone.req == nil && w.pace.served == 1 && w.pace.expect <= 1 && w.pace.parts == 0
}

// readAlone starts a read whose plan has one extent.
func (w *worker) readAlone(r *request) {
	w.ring.Room(3)
	w.alone.req = r
	atomic.StoreUint32(w.alone.flag(), 1)
	cut(r.plan.Extents, 0, r.len, func(_ int, p part) { w.readFixed(w.silent(r), r, p) })
	w.silent(r).Read(w.zero, w.alone.mem, 0)
	w.fetch(r, cmdCommitAndFetch, int32(r.len))
}

// silent returns the SQE of an operation that the next one waits for and that completes only by failing.
func (w *worker) silent(r *request) *sqe {
	s := w.ring.Get()
	s.Link()
	s.Silent()
	s.UserData = w.userData(kindAlone, r, 1)
	return s
}

// release lets go of the files of a read that has ended, and tells whether there is one that has not.
func (a *alone) release() bool {
	if a.req != nil && atomic.LoadUint32(a.flag()) == 0 {
		a.req.unmap()
		a.req = nil
	}
	return a.req != nil
}

// aloneFailed takes over a read that failed or came short. What was linked to it has ended without a word.
func (w *worker) aloneFailed(r *request) {
	w.alone.req = nil
	w.slow(r)
}
