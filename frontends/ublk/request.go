package ublk

import (
	"hash/crc32"

	"glidefs-appliance/frontends"

	"golang.org/x/sys/unix"
)

// stage says where a request goes on when it gets its buffer, or when its goroutine is done.
type stage uint8

const (
	stageAnswer stage = iota // res is the answer
	stageMove                // room is reserved: move the bytes of the write
	stageRead                // read the next piece into the buffer
	stageWork                // start the goroutine
)

// request is what a tag carries. It belongs to the worker's thread, except while its goroutine runs.
type request struct {
	sh     *share
	index  uint16 // in sh
	queue  uint16
	tag    uint16
	slot   int32 // in the ring's buffer table, or noSlot
	copied bool  // the bytes go through buffers: they are not in the table

	op  uint32
	fua bool
	off int64
	len int

	stage  stage
	work   func(*request) int32 // what the goroutine does
	done   int                  // bytes copied so far
	piece  int                  // bytes in the buffer
	parts  int                  // ring operations in flight
	failed bool                 // one of them
	linked bool                 // the answer follows the only part, in the kernel
	res    int32
	buf    int32
	plan   frontends.Plan
	place  frontends.Placement
	next   *request // in a fifo
}

const noSlot = -1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// part is what a ring operation moves: n bytes between offset `at` of the request and a file.
type part struct {
	fd  int
	off int64
	at  int
	n   int
}

// cut calls fn for the parts of [at, at+n) of a request whose bytes lie in the extents. extent is the index.
func cut(extents []frontends.Extent, at, n int, fn func(extent int, p part)) {
	pos, end := 0, at+n
	for i := range extents {
		e := &extents[i]
		lo, hi := max(pos, at), min(pos+int(e.Len), end)
		if lo < hi {
			fn(i, part{fd: descriptor(e, lo-pos, hi-lo), off: e.Off + int64(lo-pos), at: lo, n: hi - lo})
		}
		if pos += int(e.Len); pos >= end {
			return
		}
	}
}

// descriptor for n bytes at `at` of an extent.
func descriptor(e *frontends.Extent, at, n int) int {
	if e.FD >= 0 && (e.Off+int64(at)|int64(n))&511 == 0 {
		return e.Direct
	}
	return e.FD
}

// start takes a request off its descriptor and sends it on its way.
func (w *worker) start(r *request) {
	w.pace.served++
	d := r.sh.dev.desc(r.queue, r.tag)
	r.op, r.fua = d.op(), d.opFlags&reqFUA != 0
	r.off, r.len = int64(d.start)<<sectorShift, int(d.sectors)<<sectorShift
	r.copied = r.slot == noSlot || d.opFlags&reqNeedsCopy != 0
	r.done, r.failed, r.res = 0, false, 0
	w.measure(r)
	switch r.op {
	case opRead:
		w.read(r)
	case opWrite:
		w.write(r)
	case opFlush:
		w.later(r, &r.sh.flushes)
	case opDiscard:
		w.defer1(r, discard)
	case opWriteZeroes:
		w.defer1(r, writeZeroes)
	default:
		w.answer(r, -int32(unix.EOPNOTSUPP))
	}
}

// read serves from local files what lies there, and leaves the rest to a goroutine.
func (w *worker) read(r *request) {
	m := r.sh.dev.mapper
	if m == nil || r.len > maxIOBytes || !m.MapRead(r.off, int64(r.len), &r.plan) {
		w.deferWithBuffer(r, readCold)
		return
	}
	if len(r.plan.Extents) > maxParts {
		r.unmap()
		w.deferWithBuffer(r, readCold)
		return
	}
	w.count.inline.Add(1)
	resident := fromMemory(r.plan.Extents)
	if r.copied = r.copied || w.s.miscounted(r.plan.Extents); r.copied {
		w.withBuffer(r, stageRead)
		return
	}
	w.count.zeroCopied.Add(uint64(r.len))
	// Of one part the kernel can send the answer itself, which saves a turn.
	if r.linked = len(r.plan.Extents) == 1; r.linked && w.comesAlone() {
		r.linked = false
		w.readAlone(r)
		return
	}
	if r.linked && resident {
		w.pace.resident++
	}
	w.ring.Room(2)
	cut(r.plan.Extents, 0, r.len, func(_ int, p part) {
		s := w.part(r, p)
		w.readFixed(s, r, p)
		if r.linked {
			s.Link()
		}
	})
	if r.linked {
		w.pace.linked++
		w.fetch(r, cmdCommitAndFetch, int32(r.len))
	}
}

func (w *worker) readFixed(s *sqe, r *request, p part) {
	if p.fd < 0 {
		p.fd, p.off = w.zero, 0
	}
	s.ReadFixed(p.fd, uint16(r.slot), p.at, p.n, p.off)
}

// readPiece reads the next buffer full. Pieces go one after the other: a request holds one buffer.
func (w *worker) readPiece(r *request) {
	r.piece = min(r.len-r.done, bufferBytes)
	buf := w.pool.bytes(r.buf)
	cut(r.plan.Extents, r.done, r.piece, func(_ int, p part) {
		dst := buf[p.at-r.done:][:p.n]
		if p.fd < 0 {
			clear(dst)
			return
		}
		w.part(r, p).Read(p.fd, dst, p.off)
	})
	if r.parts == 0 {
		w.moved(r)
	}
}

// write reserves room in the log, where a disk has one, and moves the bytes there.
func (w *worker) write(r *request) {
	p := r.sh.dev.placer
	switch {
	case p == nil || r.len > maxIOBytes:
		w.deferWithBuffer(r, writeThrough)
	case p.TryReserve(r.off, int64(r.len), &r.place):
		w.count.inline.Add(1)
		w.move(r)
	default:
		w.defer1(r, reserve)
	}
}

// move brings the bytes of a write to where they were promised room.
func (w *worker) move(r *request) {
	if short(r) {
		w.gather(r)
		return
	}
	if r.copied = r.copied || w.s.miscounted(r.place.Extents); r.copied {
		w.withBuffer(r, stageMove)
		return
	}
	w.count.zeroCopied.Add(uint64(r.len))
	cut(r.place.Extents, 0, r.len, func(_ int, p part) {
		w.part(r, p).WriteFixed(p.fd, uint16(r.slot), p.at, p.n, p.off)
	})
}

// writePiece copies the next buffer full of a write from the kernel and on into its place.
func (w *worker) writePiece(r *request) {
	r.piece = min(r.len-r.done, bufferBytes)
	buf := w.pool.bytes(r.buf)[:r.piece]
	if err := r.copyIn(buf); err != nil {
		r.failed = true
		w.moved(r)
		return
	}
	if r.done == 0 {
		r.place.Sums = append(r.place.Sums[:0], make([]uint32, len(r.place.Extents))...)
	}
	cut(r.place.Extents, r.done, r.piece, func(i int, p part) {
		src := buf[p.at-r.done:][:p.n]
		r.place.Sums[i] = crc32.Update(r.place.Sums[i], castagnoli, src)
		w.part(r, p).Write(p.fd, src, p.off)
	})
}

// moved goes on when the last part of a piece, or with zero copy of the whole, has ended.
func (w *worker) moved(r *request) {
	switch {
	case r.failed:
		w.slow(r)
	case r.copied && r.op == opRead:
		w.pieceRead(r)
	case r.copied:
		w.pieceWritten(r)
	case r.op == opRead:
		w.answer(r, int32(r.len))
	default:
		w.later(r, &r.sh.commits)
	}
}

func (w *worker) pieceRead(r *request) {
	if err := r.copyOut(w.pool.bytes(r.buf)[:r.piece]); err != nil {
		w.answer(r, -int32(unix.EIO))
		return
	}
	w.count.copied.Add(uint64(r.piece))
	if r.done += r.piece; r.done < r.len {
		w.readPiece(r)
		return
	}
	w.answer(r, int32(r.len))
}

func (w *worker) pieceWritten(r *request) {
	w.count.copied.Add(uint64(r.piece))
	if r.done += r.piece; r.done < r.len {
		w.writePiece(r)
		return
	}
	w.pool.put(r)
	w.later(r, &r.sh.commits)
}

// slow starts again, on a goroutine that copies, a request of which a ring operation failed or came short: the disk's
// own ReadAt and WriteAt know what the error means.
func (w *worker) slow(r *request) {
	w.count.slow.Add(1)
	w.pool.put(r)
	r.done, r.failed = 0, false
	r.unmap()
	if r.op == opRead {
		w.deferWithBuffer(r, readCold)
		return
	}
	r.sh.dev.placer.Abandon(&r.place)
	w.deferWithBuffer(r, writeThrough)
}

// copyIn fills p with the bytes of a write from r.done on; copyOut gives the bytes of a read to the kernel. Memory to
// memory, on any thread.
func (r *request) copyIn(p []byte) error {
	return r.copy(p, unix.Pread)
}

func (r *request) copyOut(p []byte) error {
	return r.copy(p, unix.Pwrite)
}

func (r *request) copy(p []byte, call func(int, []byte, int64) (int, error)) error {
	for n := 0; n < len(p); {
		k, err := call(r.sh.dev.char, p[n:], copyOffset(r.queue, r.tag, r.done+n))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case k == 0:
			return unix.EIO
		default:
			n += k
		}
	}
	return nil
}
