package ublk

import (
	"errors"
	"fmt"
	"sync"

	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/ublk/uring"

	"golang.org/x/sys/unix"
)

// User data of a worker's ring:
//
//	63   60 59       48 47       36 35          20 19           0
//	| kind | device    | life      | request      | bytes - 1     |
//
// device is an index in worker.shares, and life tells apart those that had it one after the other; request is an index
// in share.reqs; bytes is what a part has to move.
const (
	kindNone  = 0 // of the ring's own
	kindTag   = 1 // FETCH or COMMIT_AND_FETCH: a request, or the end of the tag
	kindPart  = 2
	kindWake  = 3
	kindAlone = 4 // a silent operation has failed

	kindShift  = 60
	slotShift  = 48
	lifeShift  = 36
	indexShift = 20
	lifeMask   = 1<<12 - 1
	maxShares  = 1 << 12
)

// worker is one thread and its ring. All fields but inbox, waker and count belong to the thread.
type worker struct {
	s      *Server
	index  int
	thread *uring.Thread
	ring   *uring.Ring
	waker  *uring.Waker
	inbox  inbox
	count  counters

	pool   *pool
	zero   int // /dev/zero
	slots  []uint16
	shares []*share
	lives  []uint16
	todo   []*share // with commits or flushes of the running batch
	writes []frontends.Write
	small  small
	alone  alone
	pace   pace
	closed bool
}

// inbox is how other goroutines reach a worker.
type inbox struct {
	waker *uring.Waker
	mu    sync.Mutex
	reqs  []*request // whose goroutines are done
	calls []func(*worker)
	spare []*request
	shut  bool
}

func (b *inbox) done(reqs ...*request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.shut {
		b.reqs = append(b.reqs, reqs...)
		b.waker.Wake()
	}
}

// call runs fn on the worker's thread; false when that has ended.
func (b *inbox) call(fn func(*worker)) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shut {
		return false
	}
	b.calls = append(b.calls, fn)
	b.waker.Wake()
	return true
}

func (b *inbox) take() ([]*request, []func(*worker)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	reqs, calls := b.reqs, b.calls
	b.reqs, b.calls, b.spare = b.spare[:0], nil, reqs
	return reqs, calls
}

func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shut = true
}

func startWorker(s *Server, index int) (*worker, error) {
	waker, err := uring.NewWaker()
	if err != nil {
		return nil, err
	}
	w := &worker{s: s, index: index, waker: waker}
	w.inbox.waker = waker
	up := make(chan error)
	w.thread = uring.Go(func() { w.run(up) })
	if err := <-up; err != nil {
		return nil, errors.Join(err, waker.Close())
	}
	return w, nil
}

// stop has the thread take and answer nothing more; halted waits for that.
func (w *worker) stop() { w.inbox.call(func(w *worker) { w.closed = true }) }

func (w *worker) halted() { w.thread.Returned() }

// close ends the thread, with which the kernel takes the tags back, and then the ring: see uring.Tether. What goroutines
// still do is not waited for.
func (w *worker) close() error {
	return errors.Join(w.thread.Wait(quiesceLimit), w.ring.Close(), unix.Close(w.zero), w.waker.Close())
}

func (w *worker) run(up chan<- error) {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // for waits that are shorter than the default slack of 50 us
	if err := w.open(); err != nil {
		up <- err
		return
	}
	up <- nil
	w.waker.Arm(w.ring, kindWake<<kindShift)
	for !w.closed {
		w.turn()
	}
	w.inbox.close()
	// The pool's memory stays mapped if goroutines may still use it; that is when a process ends.
}

func (w *worker) open() (err error) {
	flags := uint32(uring.SetupSingleIssuer | uring.SetupCoopTaskrun | uring.SetupSubmitAll)
	if w.s.tethers {
		flags |= uring.SetupDeferTaskrun
	}
	if w.ring, err = uring.Setup(sqEntries, cqEntries, flags); err != nil {
		return err
	}
	if w.s.tethers {
		if err = w.ring.Tether(); err != nil {
			return errors.Join(err, w.ring.Close())
		}
	}
	if w.s.o.ZeroCopy {
		if err = w.ring.RegisterSparse(tableSlots); err != nil {
			return errors.Join(err, w.ring.Close())
		}
		for i := tableSlots - 1; i >= 0; i-- {
			w.slots = append(w.slots, uint16(i))
		}
	}
	if w.pool, err = newPool(w.s.o.Buffers); err != nil {
		return errors.Join(err, w.ring.Close())
	}
	if err = errors.Join(w.small.open(), w.alone.open()); err != nil {
		return errors.Join(err, w.ring.Close())
	}
	if w.zero, err = unix.Open("/dev/zero", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return errors.Join(err, w.ring.Close())
	}
	return nil
}

// turn is one round: take in what others did, let the kernel take and give, handle what came.
func (w *worker) turn() {
	for w.waker.Sleep(); w.receive(); w.waker.Sleep() {
		if w.closed {
			return
		}
	}
	w.pace.alone = w.alone.release()
	if err := w.ring.Wait(w.pace.next()); err != nil {
		panic(fmt.Sprintf("ublk worker: %v", err))
	}
	w.waker.Awake()
	w.pace.begin()
	w.alone.release()
	var cqes [64]uring.CQE
	for n := w.ring.Reap(cqes[:]); n > 0; n = w.ring.Reap(cqes[:]) {
		for _, c := range cqes[:n] {
			w.complete(c)
		}
	}
	w.settle()
	w.pace.end()
}

// receive handles the inbox, and tells whether there was anything.
func (w *worker) receive() bool {
	reqs, calls := w.inbox.take()
	for i, r := range reqs {
		reqs[i] = nil
		w.resume(r)
	}
	for _, fn := range calls {
		fn(w)
	}
	if len(reqs)+len(calls) == 0 {
		return false
	}
	w.settle()
	return true
}

func (w *worker) complete(c uring.CQE) {
	kind := c.UserData >> kindShift
	switch kind {
	case kindNone:
		w.s.o.Log.Error("ublk: a worker's tether is gone", "result", c.Res)
		return
	case kindWake:
		if c.Flags&uring.FlagMore == 0 {
			w.waker.Arm(w.ring, kindWake<<kindShift)
		}
		return
	}
	if kind == kindPart {
		w.pace.parts--
	}
	r := w.find(c.UserData)
	switch {
	case r == nil: // of a device that is gone
	case kind == kindTag:
		w.tagEvent(r, c.Res)
	case kind == kindAlone:
		w.aloneFailed(r)
	case kind == kindPart:
		w.partEvent(r, c.Res, int32(c.UserData&(1<<indexShift-1))+1)
	}
}

// partEvent handles the end of a ring operation that was to move want bytes. One of /dev/zero may come short whenever the
// kernel wants the thread elsewhere.
func (w *worker) partEvent(r *request, got, want int32) {
	whole := got == want
	if !whole {
		w.s.o.Log.Debug("a part of a request failed or came short", "disk", r.sh.dev.name, "op", r.op, "offset", r.off, "length", r.len, "want", want, "result", got)
	}
	r.parts--
	r.failed = r.failed || !whole
	if r.linked {
		w.pace.linked--
	}
	switch {
	case r.linked && whole:
		r.linked = false
		r.unmap()
		w.pace.answered++
	case r.linked: // its answer is about to come back, cancelled
	case r.parts == 0:
		w.moved(r)
	}
}

func (w *worker) find(userData uint64) *request {
	slot := userData >> slotShift & (maxShares - 1)
	if sh := w.shares[slot]; sh != nil && w.lives[slot] == uint16(userData>>lifeShift&lifeMask) {
		return &sh.reqs[uint16(userData>>indexShift)]
	}
	return nil
}

func (w *worker) userData(kind uint64, r *request, bytes int) uint64 {
	return kind<<kindShift | uint64(r.sh.slot)<<slotShift | uint64(w.lives[r.sh.slot])<<lifeShift |
		uint64(r.index)<<indexShift | uint64(bytes-1)
}

// part returns the SQE of one of r's ring operations.
func (w *worker) part(r *request, p part) *sqe {
	r.parts++
	w.pace.parts++
	s := w.ring.Get()
	s.UserData = w.userData(kindPart, r, p.n)
	return s
}

type sqe = uring.SQE

// withBuffer goes on at a stage as soon as there is a buffer.
func (w *worker) withBuffer(r *request, st stage) {
	r.stage = st
	if !w.pool.take(r, false) {
		w.count.waits.Add(1)
		return
	}
	w.buffered(r)
}

// buffered goes on with a request that has its buffer now.
func (w *worker) buffered(r *request) {
	switch r.stage {
	case stageRead:
		w.readPiece(r)
	case stageMove:
		w.writePiece(r)
	case stageWork:
		w.launch(r)
	}
}

// resume goes on with a request whose goroutine is done.
func (w *worker) resume(r *request) {
	switch {
	case r.stage == stageMove && r.res == 0:
		w.move(r)
	case r.stage == stageWork && r.res == 0:
		w.deferWithBuffer(r, writeThrough)
	default:
		w.answer(r, r.res)
	}
}

// later leaves r to the end of the batch, in one of its share's lists.
func (w *worker) later(r *request, list *[]*request) {
	if len(r.sh.commits)+len(r.sh.flushes) == 0 {
		w.todo = append(w.todo, r.sh)
	}
	*list = append(*list, r)
}

// settle ends a batch: all short writes into the log, all writes in one commit, then all flushes in one sync, then those who wait for buffers.
func (w *worker) settle() {
	w.pour()
	for len(w.todo) > 0 {
		todo := w.todo
		w.todo = nil
		for _, sh := range todo {
			w.commit(sh)
			if len(sh.flushes) > 0 {
				batch := sh.flushes
				sh.flushes = nil
				w.count.deferred.Add(uint64(len(batch)))
				w.flush(sh.dev, batch)
			}
		}
	}
	for r := w.pool.next(); r != nil; r = w.pool.next() {
		w.buffered(r)
	}
	if len(w.todo) > 0 { // by those who had waited: only reads of zeros are that fast
		w.settle()
	}
}

// commit makes the writes of a batch part of their disk, and answers those that need no flush.
func (w *worker) commit(sh *share) {
	if len(sh.commits) == 0 {
		return
	}
	w.writes = w.writes[:0]
	for _, r := range sh.commits {
		w.writes = append(w.writes, frontends.Write{Off: r.off, Place: &r.place})
	}
	err := sh.dev.placer.Commit(w.writes)
	clear(w.writes)
	for i, r := range sh.commits {
		sh.commits[i] = nil
		switch {
		case err != nil:
			w.answer(r, r.failure("write", err))
		case r.fua:
			sh.flushes = append(sh.flushes, r)
		default:
			w.answer(r, int32(r.len))
		}
	}
	sh.commits = sh.commits[:0]
}

// answer gives the kernel the result of a request and asks for the tag's next one.
func (w *worker) answer(r *request, res int32) {
	r.unmap()
	w.pool.put(r)
	w.fetch(r, cmdCommitAndFetch, res)
}
