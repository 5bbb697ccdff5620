package fuse

import (
	"context"
	"errors"
	"runtime/debug"
	"syscall"

	"glidefs-appliance/frontends"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// enter lets a request into an export; nil means EIO: evicted, removed or fenced.
func (s *Server) enter(node uint64) *export {
	e := s.export(node)
	if e == nil || e.fenced.Load() || !e.gate.enter() {
		return nil
	}
	return e
}

// leave is deferred by every handler that entered. It turns a panic into a fence.
func (s *Server) leave(e *export, r *request, st *fuse.Status) {
	if v := recover(); v != nil {
		s.fence(e, v)
		*st = fuse.EIO
	}
	r.finish()
	e.gate.leave()
}

// fence cuts an export off after a panic: what a broken invariant left behind must not reach the disk or a reader.
func (s *Server) fence(e *export, v any) {
	stack := debug.Stack()
	e.fenced.Store(true)
	s.o.Logger.Error("panic while serving an export; it is fenced", "export", e.name, "panic", v, "stack", string(stack))
	if s.o.OnPanic != nil {
		go s.o.OnPanic(e.name, v, stack)
	}
}

func (e *export) request(cancel <-chan struct{}, h *fuse.InHeader) *request {
	return &request{cancel: cancel, quit: e.quit, pid: h.Pid}
}

func (f *rawFS) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (res fuse.ReadResult, st fuse.Status) {
	e := f.s.enter(in.NodeId)
	if e == nil {
		return nil, fuse.EIO
	}
	r := e.request(cancel, &in.InHeader)
	defer f.s.leave(e, r, &st)

	off := int64(in.Offset)
	n := e.clip(off, int64(in.Size))
	if n == 0 {
		return fuse.ReadResultData(nil), fuse.OK
	}
	e.sizes.Count(frontends.OpRead, n)
	if sp := e.splice(off, n); sp != nil {
		return sp, fuse.OK
	}
	if err := e.disk.ReadAt(r, buf[:n], off); err != nil {
		return nil, f.s.status(e, "read", err)
	}
	if n < int64(len(buf)) {
		return fuse.ReadResultData(buf[:n]), fuse.OK
	}
	return nil, fuse.OK // all of the buffer: a result of any kind costs more [0.4 us; ReadResultData four system calls]
}

func (f *rawFS) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (n uint32, st fuse.Status) {
	e := f.s.enter(in.NodeId)
	if e == nil {
		return 0, fuse.EIO
	}
	r := e.request(cancel, &in.InHeader)
	defer f.s.leave(e, r, &st)

	if e.readOnly {
		return 0, fuse.EROFS
	}
	off := int64(in.Offset)
	data = data[:e.clip(off, int64(len(data)))]
	if len(data) == 0 {
		return 0, noSpace
	}
	e.sizes.Count(frontends.OpWrite, int64(len(data)))
	// The kernel adds O_DSYNC for a single call with RWF_DSYNC.
	fua := in.Flags&(unix.O_DSYNC|unix.O_SYNC) != 0
	if err := e.disk.WriteAt(r, data, off, fua); err != nil {
		return 0, f.s.status(e, "write", err)
	}
	return uint32(len(data)), fuse.OK
}

func (f *rawFS) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) (st fuse.Status) {
	e := f.s.enter(in.NodeId)
	if e == nil {
		return fuse.EIO
	}
	r := e.request(cancel, &in.InHeader)
	defer f.s.leave(e, r, &st)
	if e.readOnly {
		return fuse.OK
	}
	return f.s.status(e, "flush", e.disk.Flush(r))
}

// Fallocate answers as block/fops.c does for a device: beyond the end EINVAL, across it cut, or EINVAL without KEEP_SIZE.
func (f *rawFS) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) (st fuse.Status) {
	e := f.s.enter(in.NodeId)
	if e == nil {
		return fuse.EIO
	}
	r := e.request(cancel, &in.InHeader)
	defer f.s.leave(e, r, &st)

	off, n := int64(in.Offset), e.clip(int64(in.Offset), int64(in.Length))
	switch {
	case e.readOnly:
		return fuse.EROFS
	case n == 0, n < int64(in.Length) && in.Mode&unix.FALLOC_FL_KEEP_SIZE == 0:
		return fuse.EINVAL
	}
	e.sizes.Count(frontends.OpClear, n)
	switch in.Mode &^ unix.FALLOC_FL_KEEP_SIZE {
	case unix.FALLOC_FL_PUNCH_HOLE:
		return f.s.status(e, "discard", e.punch(r, off, n))
	case unix.FALLOC_FL_ZERO_RANGE:
		return f.s.status(e, "write zeroes", e.disk.WriteZeroes(r, off, n))
	}
	return notSupported
}

// punch makes a hole: unlike a discard it must read as zeros, its partial edge sectors included.
func (e *export) punch(ctx context.Context, off, n int64) error {
	sector := int64(e.disk.SectorSize())
	first := (off + sector - 1) / sector * sector
	last := (off + n) / sector * sector
	if first >= last {
		return e.disk.WriteZeroes(ctx, off, n)
	}
	if err := e.zero(ctx, off, first); err != nil {
		return err
	}
	if err := e.disk.Discard(ctx, first, last-first); err != nil {
		return err
	}
	return e.zero(ctx, last, off+n)
}

func (e *export) zero(ctx context.Context, from, to int64) error {
	if from == to {
		return nil
	}
	return e.disk.WriteZeroes(ctx, from, to-from)
}

// clip cuts a range at the end of the disk. A disk never shrinks, so one that has just grown is only seen late.
func (e *export) clip(off, n int64) int64 {
	return max(0, min(n, e.size.Load()-off))
}

const (
	noSpace      = fuse.Status(syscall.ENOSPC)
	notSupported = fuse.Status(syscall.EOPNOTSUPP)
)

// status maps a Disk's error to an errno.
func (s *Server) status(e *export, op string, err error) fuse.Status {
	switch {
	case err == nil:
		return fuse.OK
	case errors.Is(err, frontends.ErrReadOnly):
		return fuse.EROFS
	case errors.Is(err, frontends.ErrOutOfRange):
		return noSpace
	case errors.Is(err, context.Canceled) && !e.evicted():
		return fuse.EINTR
	}
	s.o.Logger.Debug("I/O error", "export", e.name, "op", op, "err", err)
	return fuse.EIO
}

func (e *export) evicted() bool {
	select {
	case <-e.quit:
		return true
	default:
		return false
	}
}
