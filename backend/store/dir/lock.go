package dir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"glidefs-appliance/backend/store"
)

// lock is exclusive among the goroutines of this process and among processes.
type lock struct {
	slot chan struct{}
	path string
	file *os.File // opened by the first holder of slot, kept
}

func newLock(path string) *lock { return &lock{slot: make(chan struct{}, 1), path: path} }

// acquire waits until ctx ends, then store.ErrUnavailable. Holders keep it for a rename, so waiting is rare.
func (l *lock) acquire(ctx context.Context) error {
	select {
	case l.slot <- struct{}{}:
	case <-ctx.Done():
		return l.gaveUp(ctx)
	}
	err := l.flock(ctx)
	if err != nil {
		<-l.slot
	}
	return err
}

func (l *lock) release() {
	// Unlocking an open lock file cannot fail; were it to, the next flock of ours would still succeed.
	_ = syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN)
	<-l.slot
}

const (
	firstPoll = 50 * time.Microsecond
	lastPoll  = 20 * time.Millisecond
)

func (l *lock) flock(ctx context.Context) error {
	if err := l.open(); err != nil {
		return classify(err)
	}
	return l.poll(ctx)
}

// poll: a blocking flock could not be left when ctx ends.
func (l *lock) poll(ctx context.Context) error {
	for wait := firstPoll; ; wait = min(2*wait, lastPoll) {
		err := syscall.Flock(int(l.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil && sameFile(l.file, l.path):
			return nil
		case err == nil:
			// Replaced while we waited: go for the new one. Opening it closes, and so unlocks, this one.
			if err := l.open(); err != nil {
				return classify(err)
			}
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return classify(fmt.Errorf("lock %s: %w", l.path, err))
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return l.gaveUp(ctx)
		}
	}
}

// open opens the lock file, again if somebody removed or replaced it: a lock on a file without a name excludes nobody.
func (l *lock) open() error {
	if l.file != nil && sameFile(l.file, l.path) {
		return nil
	}
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file = f
	return nil
}

func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

func (l *lock) gaveUp(ctx context.Context) error {
	return fmt.Errorf("%w: %s is held by another process: %w", store.ErrUnavailable, l.path, context.Cause(ctx))
}
