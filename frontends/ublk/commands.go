package ublk

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	askLimit    = 10 * time.Second // commands that only look
	changeLimit = 30 * time.Second // commands that wait for I/O or for the partition scan
)

// noQueue is what ADD_DEV wants as the queue.
const noQueue = 0xffff

func bytesOf[T any](p *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(p)), unsafe.Sizeof(*p))
}

// undecided: the command ended without a verdict.
func undecided(err error) bool { return errors.Is(err, errStuck) || errors.Is(err, unix.EINTR) }

// ask sends a command that changes nothing, again when it got lost.
func (c *control) ask(cl call) error {
	first := cl
	err := c.do(&first)
	if undecided(err) {
		err = c.do(&cl)
	}
	return err
}

// change sends a command, and once more when it ended without a verdict and the device is not where it should be.
func (c *control) change(name string, cl call, reached func(devInfo, error) bool) error {
	first := cl
	err := c.do(&first)
	if undecided(err) {
		err = c.again(name, cl, reached, err)
	}
	if err != nil {
		return fmt.Errorf("ublk device %d: %s: %w", cl.dev, name, err)
	}
	return nil
}

// again looks where the device stands after a command got lost, and sends that a second time if need be. The first one
// may still be at work then, and its success is the second one's error.
func (c *control) again(name string, cl call, reached func(devInfo, error) bool, err error) error {
	info, infoErr := c.info(cl.dev)
	c.log.Warn("ublk: a control command got lost", "command", name, "device", cl.dev, "state", info.State, "err", infoErr)
	switch {
	case reached(info, infoErr):
		return nil
	case infoErr != nil:
		return err
	}
	err = c.do(&cl)
	if err != nil && reached(c.info(cl.dev)) {
		return nil
	}
	return err
}

func (c *control) features() (uint64, error) {
	var f uint64
	if err := c.ask(call{op: cmdGetFeatures, buf: bytesOf(&f), limit: askLimit}); err != nil {
		return 0, fmt.Errorf("ublk: ask for features: %w", err)
	}
	return f, nil
}

// info of a device; unix.ENODEV when there is none of that number.
func (c *control) info(id uint32) (devInfo, error) {
	var i devInfo
	if err := c.ask(call{op: cmdGetDevInfo, dev: id, buf: bytesOf(&i), limit: askLimit}); err != nil {
		return i, fmt.Errorf("ublk device %d: ask for information: %w", id, err)
	}
	return i, nil
}

func (c *control) params(id uint32) (devParams, error) {
	p := devParams{len: uint32(paramsLen)}
	if err := c.ask(call{op: cmdGetParams, dev: id, buf: bytesOf(&p)[:paramsLen], limit: askLimit}); err != nil {
		return p, fmt.Errorf("ublk device %d: ask for parameters: %w", id, err)
	}
	return p, nil
}

// add makes a device and reads back what it became. A command without a verdict made none, or the kernel says later that
// it did: then that one is taken away again, and has another number than the one of the second attempt.
func (c *control) add(i *devInfo) error {
	err := c.addOnce(*i, i)
	if undecided(err) {
		c.log.Warn("ublk: a control command got lost", "command", "add")
		err = c.addOnce(*i, i)
	}
	if errors.Is(err, unix.EACCES) {
		return fmt.Errorf("add ublk device: %w: the host's limit is reached, raise /sys/module/ublk_drv/parameters/ublks_max", err)
	}
	if err != nil {
		return fmt.Errorf("add ublk device of %d queues with %d tags: %w", i.Queues, i.Depth, err)
	}
	return nil
}

func (c *control) addOnce(want devInfo, got *devInfo) error {
	cl := call{op: cmdAddDev, dev: want.ID, queue: noQueue, buf: bytesOf(&want), limit: changeLimit}
	cl.late = func(buf []byte) {
		id := (*devInfo)(unsafe.Pointer(&buf[0])).ID
		go func() {
			if err := c.drop(id); err != nil {
				c.log.Error("ublk: a device that nobody waited for stays", "device", id, "err", err)
			}
		}()
	}
	err := c.do(&cl)
	if err == nil {
		*got = want
	}
	return err
}

func (c *control) setParams(id uint32, p *devParams) error {
	p.len = uint32(paramsLen)
	return c.change("set parameters", call{op: cmdSetParams, dev: id, buf: bytesOf(p)[:paramsLen], limit: askLimit},
		func(devInfo, error) bool { return false })
}

func live(i devInfo, err error) bool { return err == nil && i.State == stateLive }
func gone(_ devInfo, err error) bool { return errors.Is(err, unix.ENODEV) }
func dead(i devInfo, err error) bool { return gone(i, err) || err == nil && i.State == stateDead }

// start makes the block device appear; the workers must have fetched all tags and be serving.
func (c *control) start(id uint32) error {
	return c.change("start", call{op: cmdStartDev, dev: id, data: uint64(unix.Getpid()), limit: changeLimit}, live)
}

// stop makes the block device disappear, after the requests in flight.
func (c *control) stop(id uint32) error {
	return c.change("stop", call{op: cmdStopDev, dev: id, limit: changeLimit}, dead)
}

// del removes a device. It waits for all who hold the char or the block device.
func (c *control) del(id uint32) error {
	return c.change("delete", call{op: cmdDelDev, dev: id, limit: changeLimit}, gone)
}

// drop removes a device without waiting for those who hold it; the number is free when the last has let go. Kernels
// that have no such command (before 6.7) wait.
func (c *control) drop(id uint32) error {
	err := c.change("delete", call{op: cmdDelDevAsync, dev: id, limit: changeLimit}, gone)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return c.del(id)
	}
	return err
}

func (c *control) startRecovery(id uint32) error {
	return c.change("start recovery", call{op: cmdStartRecovery, dev: id, limit: askLimit},
		func(devInfo, error) bool { return false })
}

func (c *control) endRecovery(id uint32) error {
	return c.change("end recovery", call{op: cmdEndRecovery, dev: id, data: uint64(unix.Getpid()), limit: changeLimit}, live)
}

// resize tells the kernel the size of a live device, in bytes. Before START_DEV it would crash 6.17.
func (c *control) resize(id uint32, size int64) error {
	return c.change("resize", call{op: cmdUpdateSize, dev: id, data: uint64(size) >> sectorShift, limit: askLimit},
		func(devInfo, error) bool { return false })
}
