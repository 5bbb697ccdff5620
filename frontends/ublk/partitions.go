package ublk

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// scanned returns when the kernel has looked for partitions. Up to 6.18.4 START_DEV does that. From 7.0 it leaves it to
// us. Those in between do it on a thread of their own, sooner or later, under a lock that whoever opens the device
// waits for: `partscan` tells when they have begun.
func (d *Device) scanned(ctx context.Context) error {
	asked := d.info.Flags&flagNoPartScan != 0
	if !asked {
		if err := poll(ctx, nodeLimit, d.scanBegan); err != nil {
			return fmt.Errorf("wait for the search for partitions on %s: %w", d.Path(), err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- scan(d.Path(), asked) }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("look for partitions on %s: %w", d.Path(), err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the partitions of %s: %w", d.Path(), ctx.Err())
	}
}

// scanBegan is true of kernels before 6.10, which don't tell: there it is over.
func (d *Device) scanBegan() (bool, error) {
	told, err := os.ReadFile(fmt.Sprintf("/sys/class/block/ublkb%d/partscan", d.ID()))
	return err != nil || !bytes.HasPrefix(told, []byte("0")), nil
}

// scan opens a block device, and has the kernel look for partitions if it is to be asked. Who has it, or a partition, for
// himself (EBUSY) found what he was looking for.
func scan(path string, ask bool) error {
	fd, err := retried(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !ask {
		return nil
	}
	_, err = retried(func() (int, error) { return 0, unix.IoctlSetInt(fd, unix.BLKRRPART, 0) })
	if err == unix.EBUSY {
		return nil
	}
	return err
}

// retried repeats a call that a signal interrupts.
func retried(call func() (int, error)) (n int, err error) {
	for n, err = call(); err == unix.EINTR; n, err = call() {
	}
	return n, err
}
