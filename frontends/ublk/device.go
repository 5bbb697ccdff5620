package ublk

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"glidefs-appliance/frontends"

	"golang.org/x/sys/unix"
)

// Device is a disk being served.
type Device struct {
	s      *Server
	name   string
	cookie uint64
	disk   frontends.Disk
	mapper frontends.Mapper // nil if the disk is none
	placer frontends.Placer

	info     devInfo
	copies   bool // no request's pages are put into the table
	zeroCopy bool // as the kernel granted it
	perTag   bool // each tag may have its own thread
	bare     bool // without partitions: nobody looks for any
	char     int  // /dev/ublkcN
	descs    [][]byte
	sizes    []frontends.Sizes // of each worker's requests

	ctx      context.Context // ends the waits of requests
	cancel   context.CancelFunc
	deferred sync.WaitGroup // goroutines of requests
	shares   sync.WaitGroup // of workers
	attached int            // workers that have one
}

func (s *Server) newDevice(name string, cookie uint64, disk frontends.Disk) *Device {
	d := &Device{s: s, name: name, cookie: cookie, disk: disk, char: -1, sizes: make([]frontends.Sizes, len(s.workers))}
	if m, ok := disk.(frontends.Mapper); ok {
		d.mapper = mapper{m, d}
	}
	if p, ok := disk.(frontends.Placer); ok {
		d.placer = placer{p, d}
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// Path of the block device.
func (d *Device) Path() string { return blockPath(d.info.ID) }

// ID is the number in Path.
func (d *Device) ID() int { return int(d.info.ID) }

// ZeroCopy tells how the bytes go.
func (d *Device) ZeroCopy() bool { return d.zeroCopy && !d.copies }

func blockPath(id uint32) string { return "/dev/ublkb" + strconv.Itoa(int(id)) }
func charPath(id uint32) string  { return "/dev/ublkc" + strconv.Itoa(int(id)) }

// desc of a tag. The kernel wrote it before it posted the completion.
func (d *Device) desc(queue, tag uint16) *ioDesc {
	return (*ioDesc)(unsafe.Pointer(&d.descs[queue][int(tag)*int(unsafe.Sizeof(ioDesc{}))]))
}

// open takes back the device that a dead process left, or makes a new one.
func (d *Device) open(ctx context.Context) error {
	old, err := d.s.left(d.cookie)
	if err != nil {
		return err
	}
	if old == nil {
		return d.create(ctx)
	}
	fits, err := d.fits(*old)
	if err != nil {
		return err
	}
	if fits {
		return d.recover(ctx, *old)
	}
	if err := d.s.discard(*old); err != nil {
		return err
	}
	d.s.taken(d.cookie)
	return d.create(ctx)
}

// wanted is what a new device asks for.
func (d *Device) wanted() devInfo {
	i := devInfo{
		Queues: uint16(min(len(d.s.workers), maxQueues)), Depth: uint16(d.s.depth()), MaxIOBytes: maxIOBytes, ID: anyID, Cookie: d.cookie,
		Flags: flagUserCopy | flagRecovery | flagReissue | flagUpdateSize | flagNoPartScan,
	}
	if !d.copies {
		i.Flags |= flagZeroCopy | flagAutoBufReg
	}
	return i
}

const anyID = 1<<32 - 1

// granted notes what a device can do. Flags that the kernel does not know are gone from the answer.
func (d *Device) granted(i devInfo) error {
	d.info = i
	d.zeroCopy = i.Flags&(flagZeroCopy|flagAutoBufReg) == flagZeroCopy|flagAutoBufReg
	d.perTag = i.Flags&flagPerIODaemon != 0
	if i.Flags&flagUserCopy == 0 || i.Flags&flagRecovery == 0 {
		return fmt.Errorf("ublk device %d: %w: the kernel granted flags %#x only", i.ID, errors.ErrUnsupported, i.Flags)
	}
	return nil
}

func (d *Device) create(ctx context.Context) error {
	t := d.s.steps(d.name)
	settled := context.AfterFunc(ctx, d.cancel) // the partition scan must not wait for a store when nobody waits for the device
	info := d.wanted()
	if err := d.s.control.add(&info); err != nil {
		return err
	}
	t.step("add")
	err := d.granted(info)
	if err == nil {
		err = d.s.control.setParams(info.ID, d.params())
		t.step("params")
	}
	if err == nil && d.searched() {
		err = d.warm(ctx)
		t.step("warm")
	}
	if err == nil {
		err = d.serve(ctx)
		t.step("serve")
	}
	if err == nil {
		d.s.mark(info.ID)
		err = d.s.control.start(info.ID)
		t.step("start")
	}
	if err == nil {
		err = awaitNode(ctx, d.Path())
		t.step("node")
	}
	if err == nil && !d.bare {
		err = d.scanned(ctx)
		t.step("partitions")
	}
	if !settled() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return errors.Join(err, d.remove(context.WithoutCancel(ctx), true))
	}
	t.done("ublk device made", "device", info.ID, "zeroCopy", d.zeroCopy, "queues", info.Queues, "depth", info.Depth)
	return nil
}

func (d *Device) params() *devParams {
	shift := uint8(bits.TrailingZeros(uint(d.disk.SectorSize())))
	p := &devParams{
		types: paramBasic | paramDiscard,
		basic: paramsBasic{
			attrs: attrVolatileCache | attrFUA, logicalShift: shift, physicalShift: 12, ioMinShift: 12, ioOptShift: 17,
			maxSectors: maxIOBytes >> sectorShift, devSectors: uint64(d.disk.Size()) >> sectorShift,
		},
		discard: paramsDiscard{
			granularity: uint32(d.disk.SectorSize()), maxDiscardSectors: maxClearSectors,
			maxWriteZeroesSectors: maxClearSectors, maxSegments: 1,
		},
	}
	if d.disk.ReadOnly() {
		p.basic.attrs |= attrReadOnly
	}
	if d.zeroCopy { // the guest's pages go to O_DIRECT files
		p.types |= paramDMAAlign
		p.dmaAlign = dmaMask
	}
	return p
}

const (
	maxClearSectors = 1 << 22 // 2 GiB
	dmaMask         = 511
)

// serve opens the char device and has the workers fetch all tags.
func (d *Device) serve(ctx context.Context) error {
	if err := d.openChar(ctx); err != nil {
		return err
	}
	d.s.count(d, 1)
	for _, w := range d.s.workers {
		fetched := make(chan error, 1)
		if !w.inbox.call(func(w *worker) { fetched <- w.attach(d) }) {
			return context.Canceled
		}
		if err := <-fetched; err != nil {
			return fmt.Errorf("ublk device %d: fetch: %w", d.info.ID, err)
		}
		d.attached++
	}
	return nil
}

// busyLimit is how long the last user may take to let go: the kernel ends a mount after umount(2) has returned.
const busyLimit = time.Second

// nodeLimit is how long devtmpfs and udev may take to make a node, and a dead process's last references to go away.
const nodeLimit = 10 * time.Second

func (d *Device) openChar(ctx context.Context) error {
	path := charPath(d.info.ID)
	err := poll(ctx, nodeLimit, func() (bool, error) {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err == nil {
			d.char = fd
		}
		return err == nil, err
	}, unix.ENOENT, unix.EBUSY, unix.EINTR)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	page := int64(os.Getpagesize())
	size := roundUp(int64(d.info.Depth)*int64(unsafe.Sizeof(ioDesc{})), page)
	for q := range d.info.Queues {
		m, err := unix.Mmap(d.char, int64(q)*descStride(page), int(size), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
		if err != nil {
			return fmt.Errorf("map %s: %w", path, err)
		}
		d.descs = append(d.descs, m)
	}
	return nil
}

// closeChar lets go of the char device; DEL_DEV waits for that.
func (d *Device) closeChar() error {
	var errs []error
	for _, m := range d.descs {
		errs = append(errs, unix.Munmap(m))
	}
	if d.descs = nil; d.char >= 0 {
		errs = append(errs, unix.Close(d.char))
	}
	d.char = -1
	return errors.Join(errs...)
}

// unused returns ErrBusy if somebody has the block device for himself: a mount, a loop device, device mapper, swap.
func (d *Device) unused(ctx context.Context) error {
	err := poll(ctx, busyLimit, func() (bool, error) {
		fd, err := unix.Open(d.Path(), unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err == nil, err
	}, unix.EBUSY, unix.EINTR)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%s: %w", d.Path(), ErrBusy)
	}
	return nil
}

// remove stops and deletes the device, however far it came. Repeatable after an error.
func (d *Device) remove(ctx context.Context, force bool) error {
	del := d.s.control.del
	if force {
		d.cancel()
		del = d.s.control.drop
	}
	if err := d.s.control.stop(d.info.ID); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	if d.attached > 0 {
		if err := d.returned(ctx); err != nil {
			return err
		}
		d.s.count(d, -1)
		d.attached = 0
	}
	d.cancel()
	d.deferred.Wait()
	if err := d.closeChar(); err != nil {
		return err
	}
	unmark(d.info.ID)
	if err := del(d.info.ID); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// returned waits until the kernel has all tags back, which STOP_DEV has seen to.
func (d *Device) returned(ctx context.Context) error {
	all := make(chan struct{})
	go func() {
		d.shares.Wait()
		close(all)
	}()
	ctx, cancel := context.WithTimeout(ctx, nodeLimit)
	defer cancel()
	select {
	case <-all:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("ublk device %d: the kernel does not give its tags back: %w", d.info.ID, ctx.Err())
	}
}

func awaitNode(ctx context.Context, path string) error {
	return poll(ctx, nodeLimit, func() (bool, error) {
		_, err := os.Stat(path)
		return err == nil, err
	}, unix.ENOENT)
}

// poll repeats try while it fails with one of the errors, for at most limit.
func poll(ctx context.Context, limit time.Duration, try func() (bool, error), retry ...error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		ok, err := try()
		if ok || err != nil && !isAny(err, retry) {
			return err
		}
		select {
		case <-ctx.Done():
			if err == nil {
				return ctx.Err()
			}
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(wait):
		}
	}
}

func isAny(err error, list []error) bool {
	for _, e := range list {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// present lists the numbers of all ublk devices of the host.
func present() ([]uint32, error) {
	names, err := filepath.Glob("/sys/class/ublk-char/ublkc*")
	if err != nil {
		return nil, err
	}
	var ids []uint32
	for _, n := range names {
		if id, err := strconv.ParseUint(filepath.Base(n)[len("ublkc"):], 10, 32); err == nil {
			ids = append(ids, uint32(id))
		}
	}
	return ids, nil
}
