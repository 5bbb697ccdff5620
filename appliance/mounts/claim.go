package mounts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrClaimed: another command is mounting the disk.
var ErrClaimed = errors.New("another command is mounting it")

const (
	// claimFor is how long Claim waits: mkfs takes seconds on a large disk.
	claimFor   = 30 * time.Second
	claimRetry = 20 * time.Millisecond
)

// Claim waits until no other command is mounting the disk at path, and keeps others from it until the claim is closed.
// Between the look at what uses a disk and the loop device that shows that somebody does, a second command would put
// another loop device over the same bytes, and with it a second file system that knows nothing of the first.
//
// It is a flock of the disk itself, which everybody finds, whatever namespace and state dir they are in. udevd keeps away
// from a block device for as long (https://systemd.io/BLOCK_DEVICE_LOCKING).
func Claim(ctx context.Context, path string) (io.Closer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, claimFor, ErrClaimed)
	defer cancel()
	retry := time.NewTicker(claimRetry)
	defer retry.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("claim %s: %w", path, err)
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("claim %s: %w", path, context.Cause(ctx))
		}
	}
}
