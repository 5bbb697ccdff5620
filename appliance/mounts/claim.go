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
// It is a lock on the disk itself, which everybody finds. An open file description lock, not flock: udevd leaves a block
// device alone that somebody has flocked (https://systemd.io/BLOCK_DEVICE_LOCKING), and it has to apply our rule to a new one.
func Claim(ctx context.Context, path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, claimFor, ErrClaimed)
	defer cancel()
	retry := time.NewTicker(claimRetry)
	defer retry.Stop()
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET})
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EINTR) {
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
