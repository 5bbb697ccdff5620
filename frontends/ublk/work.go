package ublk

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// What goroutines do. Each returns the answer, or 0 with r.stage set when the worker goes on.

// defer1 hands r to a goroutine.
func (w *worker) defer1(r *request, work func(*request) int32) {
	w.count.deferred.Add(1)
	r.work = work
	w.launch(r)
}

// deferWithBuffer does so once r has a buffer.
func (w *worker) deferWithBuffer(r *request, work func(*request) int32) {
	w.count.deferred.Add(1)
	r.work, r.stage = work, stageWork
	if !w.pool.take(r, true) {
		w.count.waits.Add(1)
		return
	}
	w.launch(r)
}

func (w *worker) launch(r *request) {
	r.stage = stageAnswer
	dev := r.sh.dev
	dev.deferred.Add(1)
	go func() {
		defer dev.deferred.Done()
		r.res = dev.guard(func() int32 { return r.work(r) })
		w.inbox.done(r)
	}()
}

// failure is the answer to an error of the disk. The guest gets EIO whatever it was; the log gets the words.
func (r *request) failure(what string, err error) int32 {
	if !errors.Is(err, context.Canceled) {
		r.sh.dev.s.o.Log.Warn("request failed", "disk", r.sh.dev.name, "op", what, "offset", r.off, "length", r.len, "err", err)
	}
	return -int32(unix.EIO)
}

func readCold(r *request) int32 {
	dev, buf := r.sh.dev, r.sh.w.pool.bytes(r.buf)
	for r.done = 0; r.done < r.len; {
		p := buf[:min(r.len-r.done, bufferBytes)]
		if err := dev.disk.ReadAt(dev.ctx, p, r.off+int64(r.done)); err != nil {
			return r.failure("read", err)
		}
		if err := r.copyOut(p); err != nil {
			return r.failure("read", err)
		}
		r.done += len(p)
	}
	r.sh.w.count.copied.Add(uint64(r.len))
	return int32(r.len)
}

// writeThrough serves disks that are no Placers, and writes whose place in the log failed.
func writeThrough(r *request) int32 {
	dev, buf := r.sh.dev, r.sh.w.pool.bytes(r.buf)
	for r.done = 0; r.done < r.len; {
		p := buf[:min(r.len-r.done, bufferBytes)]
		if err := r.copyIn(p); err != nil {
			return r.failure("write", err)
		}
		fua := r.fua && len(p) == r.len
		if err := dev.disk.WriteAt(dev.ctx, p, r.off+int64(r.done), fua); err != nil {
			return r.failure("write", err)
		}
		r.done += len(p)
	}
	r.sh.w.count.copied.Add(uint64(r.len))
	if r.fua && r.len > bufferBytes {
		if err := dev.disk.Flush(dev.ctx); err != nil {
			return r.failure("write", err)
		}
	}
	return int32(r.len)
}

// reserve waits for room in the log; the request holds nothing meanwhile. A disk that refuses gets the write the other
// way: its WriteAt takes any, or says what is wrong.
func reserve(r *request) int32 {
	dev := r.sh.dev
	r.stage = stageMove
	if dev.placer.Reserve(dev.ctx, r.off, int64(r.len), &r.place) != nil {
		r.stage = stageWork
	}
	return 0
}

func discard(r *request) int32 {
	if err := r.sh.dev.disk.Discard(r.sh.dev.ctx, r.off, int64(r.len)); err != nil {
		return r.failure("discard", err)
	}
	return 0
}

func writeZeroes(r *request) int32 {
	dev := r.sh.dev
	err := dev.disk.WriteZeroes(dev.ctx, r.off, int64(r.len))
	if err == nil && r.fua {
		err = dev.disk.Flush(dev.ctx)
	}
	if err != nil {
		return r.failure("write zeroes", err)
	}
	return 0
}

// flush answers all requests of a batch that asked for it with one Flush.
func (w *worker) flush(dev *Device, batch []*request) {
	dev.deferred.Add(1)
	go func() {
		defer dev.deferred.Done()
		res := dev.guard(func() int32 {
			if err := dev.disk.Flush(dev.ctx); err != nil {
				return batch[0].failure("flush", err)
			}
			return 0
		})
		for _, r := range batch {
			r.stage, r.res = stageAnswer, res
			if res == 0 && r.op == opWrite {
				r.res = int32(r.len)
			}
		}
		w.inbox.done(batch...)
	}()
}
