package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/wlog"
)

// PendingError: the disk is detached, and this much of it is only in the local log, which is safe there.
type PendingError struct {
	Name   string
	Bytes  int64
	Writes uint64
	Cause  error // why the store does not have it; nil when nobody asked for the upload
}

func (e *PendingError) Error() string {
	return fmt.Sprintf("disk %q: %d bytes (%d writes) are not in the store yet", e.Name, e.Bytes, e.Writes)
}

func (e *PendingError) Unwrap() error { return e.Cause }

// Close detaches: it flushes and uploads nothing more. When everything is in the store it says so in the manifest, so
// that another host may attach, and gives the log's space back; otherwise the log stays and Close returns a
// *PendingError. It blocks on the store, for the manifest, until ctx ends.
func (v *Volume) Close(ctx context.Context) error {
	if v.log == nil {
		v.die(ErrClosed)
		v.stop()
		return nil
	}
	v.stop()
	dead := v.dead.Load()
	v.dead.CompareAndSwap(nil, &errClosed)
	v.mu.Lock() // from here on nothing is appended
	bytes, writes := v.log.Unsettled()
	v.mu.Unlock()
	err := v.log.Close()
	if dead != nil {
		return *dead
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFailed, err)
	}
	if writes > 0 {
		return &PendingError{Name: v.name, Bytes: bytes, Writes: writes}
	}
	return v.disown(ctx)
}

var errClosed error = ErrClosed

// drop ends a volume that nobody uses, because it was opened for its log only or not to the end. The log stays as it is,
// closed: its descriptors and its share of the budget are given back.
func (v *Volume) drop(err error) {
	v.Kill(err)
	if v.log != nil {
		_ = v.log.Close() // tells why it was killed
	}
}

// disown gives up the ownership.
func (v *Volume) disown(ctx context.Context) error {
	if err := v.takeManifest(ctx); err != nil {
		return &PendingError{Name: v.name, Cause: err}
	}
	defer v.releaseManifest()
	ctx = store.With(ctx, store.Manifest)
	if v.manifest.cell == nil {
		err := v.connect(ctx)
		if errors.Is(err, ErrFenced) {
			return err
		} else if err != nil {
			return &PendingError{Name: v.name, Cause: err}
		}
	}
	if err := v.forgetKept(); err != nil {
		return &PendingError{Name: v.name, Cause: err}
	}
	err := v.manifest.cell.Replace(ctx, func(next *manifest.Manifest) { next.Closed = true })
	if errors.Is(err, manifest.ErrFenced) {
		return fmt.Errorf("%w: %w", ErrFenced, err)
	}
	if err != nil {
		return &PendingError{Name: v.name, Cause: err}
	}
	if err := v.log.Remove(); err != nil {
		return fmt.Errorf("detach %s: %w", v.name, err)
	}
	return nil
}

// forgetKept takes away what a later attach could do without the store with: once the disk is free another host may have it.
func (v *Volume) forgetKept() error {
	err := v.host.FS.Remove(filepath.Join(v.dir, keptManifest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = v.host.FS.SyncDir(v.dir)
	}
	if err != nil {
		return fmt.Errorf("detach %s: %w", v.name, err)
	}
	return nil
}

// Grow makes the disk larger, at once. It blocks on the store.
func (v *Volume) Grow(ctx context.Context, size int64) error {
	if err := v.check(0, 0, true); err != nil {
		return err
	}
	if size < v.Size() || size%v.sector != 0 {
		return &SizeError{Name: v.name, Have: v.Size(), Ask: size}
	}
	if err := v.replace(ctx, manifest.Window{}, func(next *manifest.Manifest) { next.Size = size }); err != nil {
		return err
	}
	v.size.Store(size)
	return nil
}

// evict takes a segment that is given up out of the map: the view has all of it. The lock is dropped between records,
// so that requests go on.
func (v *Volume) evict(seg *wlog.Segment) {
	v.promote(seg)
	err := seg.Records(func(r wlog.Record) error {
		v.mu.Lock()
		v.mu.m.removeMatch(r.First, r.First+r.Count, 32, uint64(seg.Number()))
		v.mu.Unlock()
		return nil
	})
	if err != nil {
		_ = v.failed(err)
	}
}

// noteFull keeps for Status why requests wait.
func (v *Volume) noteFull(waiting int, err error) {
	switch {
	case waiting == 0:
		v.full.Store(nil)
		return
	case err == nil:
		err = errLogFull
	}
	if old := v.full.Swap(&err); old == nil || (*old).Error() != err.Error() {
		v.host.Log.Warn("writes wait for room in the log", "disk", v.name, "waiting", waiting, "reason", err)
	}
	v.pressure()
}
