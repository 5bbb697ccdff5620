package ublk

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// scanned waits until the kernel has looked for partitions. Up to 6.18.4 START_DEV does that; later kernels do it by the
// side, and whoever opens the device waits for it.
func (d *Device) scanned(ctx context.Context) error {
	opened := make(chan error, 1)
	go func() {
		fd, err := unix.Open(d.Path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		for err == unix.EINTR {
			fd, err = unix.Open(d.Path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		if err == nil {
			err = unix.Close(fd)
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		if err != nil {
			return fmt.Errorf("open %s: %w", d.Path(), err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the partitions of %s: %w", d.Path(), ctx.Err())
	}
}
