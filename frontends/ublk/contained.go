package ublk

import (
	"context"
	"errors"
	"runtime/debug"

	"glidefs-appliance/frontends"

	"golang.org/x/sys/unix"
)

// A worker's thread and the goroutines of its requests serve many disks: a panic of one is an error of its request, and
// Options.OnPanic is told, who must not wait.

var errPanicked = errors.New("the disk panicked")

// caught is deferred.
func (d *Device) caught() {
	if v := recover(); v != nil {
		d.s.o.OnPanic(d.name, v, debug.Stack())
	}
}

// guard is for the work of a goroutine.
func (d *Device) guard(fn func() int32) (res int32) {
	res = -int32(unix.EIO)
	defer d.caught()
	res = fn()
	return res
}

// unmap gives up what a read was served from.
func (r *request) unmap() {
	defer r.sh.dev.caught()
	r.plan.Release()
}

// mapper and placer are for what the worker's thread asks of a disk.
type mapper struct {
	frontends.Mapper
	d *Device
}

func (m mapper) MapRead(off, n int64, plan *frontends.Plan) (ok bool) {
	defer m.d.caught()
	ok = m.Mapper.MapRead(off, n, plan)
	return ok
}

type placer struct {
	frontends.Placer
	d *Device
}

func (p placer) TryReserve(off, n int64, place *frontends.Placement) (ok bool) {
	defer p.d.caught()
	ok = p.Placer.TryReserve(off, n, place)
	return ok
}

func (p placer) Reserve(ctx context.Context, off, n int64, place *frontends.Placement) (err error) {
	err = errPanicked
	defer p.d.caught()
	err = p.Placer.Reserve(ctx, off, n, place)
	return err
}

func (p placer) Commit(writes []frontends.Write) (err error) {
	err = errPanicked
	defer p.d.caught()
	err = p.Placer.Commit(writes)
	return err
}

func (p placer) Abandon(place *frontends.Placement) {
	defer p.d.caught()
	p.Placer.Abandon(place)
}
