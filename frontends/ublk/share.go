package ublk

import "golang.org/x/sys/unix"

// share is what one worker serves of one device: some of its tags. It belongs to the worker's thread.
type share struct {
	dev     *Device
	w       *worker
	slot    uint16 // in worker.shares
	reqs    []request
	commits []*request // writes of the running batch whose bytes are in place
	flushes []*request // and those that wait for a sync
	out     int        // tags that the kernel has taken back
}

// attach takes over this worker's tags of a device and fetches each. The kernel has them when it returns.
func (w *worker) attach(dev *Device) error {
	sh := &share{dev: dev, w: w}
	for q := range dev.info.Queues {
		for tag := range dev.info.Depth {
			if owner(q, tag, dev.perTag, len(w.s.workers)) == w.index {
				sh.reqs = append(sh.reqs, request{sh: sh, index: uint16(len(sh.reqs)), queue: q, tag: tag, slot: noSlot, buf: noBuffer})
			}
		}
	}
	if !w.enter(sh) {
		return unix.EMFILE
	}
	for i := range sh.reqs {
		r := &sh.reqs[i]
		if last := len(w.slots) - 1; dev.ZeroCopy() && last >= 0 {
			r.slot = int32(w.slots[last])
			w.slots = w.slots[:last]
		}
		w.fetch(r, cmdFetch, 0)
	}
	dev.shares.Add(1)
	if len(sh.reqs) == 0 {
		w.leave(sh)
	}
	return w.ring.Submit()
}

// enter finds a place in the table.
func (w *worker) enter(sh *share) bool {
	for i := range w.shares {
		if w.shares[i] == nil {
			w.shares[i], sh.slot = sh, uint16(i)
			return true
		}
	}
	if len(w.shares) == maxShares {
		return false
	}
	w.shares, w.lives = append(w.shares, sh), append(w.lives, 0)
	sh.slot = uint16(len(w.shares) - 1)
	return true
}

// leave ends the share: the kernel has all tags back.
func (w *worker) leave(sh *share) {
	for i := range sh.reqs {
		if s := sh.reqs[i].slot; s != noSlot {
			w.slots = append(w.slots, uint16(s))
		}
	}
	w.shares[sh.slot] = nil
	w.lives[sh.slot] = (w.lives[sh.slot] + 1) & lifeMask
	sh.dev.shares.Done()
}

// fetch sends FETCH or COMMIT_AND_FETCH.
func (w *worker) fetch(r *request, cmd uint32, res int32) {
	s := w.ring.Get()
	word := uint64(0) // a zero-copy device names a slot in any case
	if r.sh.dev.zeroCopy {
		word = autoBufWord(tableEnd)
		if r.slot != noSlot {
			word = autoBufWord(uint16(r.slot))
		}
	}
	s.Command(r.sh.dev.char, cmd, word)
	s.UserData = w.userData(kindTag, r, 1)
	*(*ioCmd)(s.Payload()) = ioCmd{queue: r.queue, tag: r.tag, result: res}
}

// tableEnd is no slot: where the driver can't register a request's pages, and falls back.
const tableEnd = tableSlots

// tagEvent handles the completion of a FETCH: a request, or the end of the tag. ENODEV ends it in order; any other error
// is ours, and the tag is lost as well.
func (w *worker) tagEvent(r *request, res int32) {
	switch {
	case res >= 0:
		w.start(r)
		return
	case r.linked && res == -int32(unix.ECANCELED):
		r.linked = false
		w.slow(r)
		return
	}
	if res != -int32(unix.ENODEV) {
		w.s.o.Log.Error("the kernel refused a tag", "disk", r.sh.dev.name, "queue", r.queue, "tag", r.tag, "err", unix.Errno(-res))
	}
	if r.sh.out++; r.sh.out == len(r.sh.reqs) {
		w.leave(r.sh)
	}
}
