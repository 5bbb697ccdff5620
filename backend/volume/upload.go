package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/wlog"
)

// The uploader is goroutines that exist while there is something to upload: one cuts and builds, one for each pack that
// is built PUTs it, the last one flushes the log to the barrier and moves the manifest, batch by batch in order. So the
// next batch is built and sent while one waits for its manifest; should that never move, its pack is garbage.

// startUploader makes sure the uploader runs and looks at the log again.
func (v *Volume) startUploader() {
	v.mu.Lock()
	start := !v.mu.running && !v.mu.paused && v.mu.failed == nil
	v.mu.running = v.mu.running || start
	v.mu.Unlock()
	if !start || !v.spawn(v.upload) {
		v.nudge()
	}
}

// Pause keeps the uploader from beginning new batches until Pause(false). Writes go on until the log is full.
func (v *Volume) Pause(paused bool) {
	v.mu.Lock()
	v.mu.paused = paused
	v.mu.Unlock()
	v.nudge()
	if !paused {
		v.startUploader()
	}
}

// retryUpload starts the uploader again after the pause that follows an error.
func (v *Volume) retryUpload() {
	v.mu.Lock()
	v.mu.failed = nil
	v.mu.Unlock()
	v.startUploader()
}

// nudge wakes the uploader, if it runs.
func (v *Volume) nudge() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// pressure is called when requests wait for room that only an upload can give: upload now. A request that waits for the
// next segment to be made is no reason: batches would be small.
func (v *Volume) pressure() {
	v.mu.Lock()
	v.mu.want = max(v.mu.want, v.log.LastSeq())
	v.mu.Unlock()
	v.startUploader()
	v.nudge()
}

// upload runs until everything committed is in the store or the volume ends.
func (v *Volume) upload() {
	ctx, cancel := context.WithCancel(store.With(v.ctx, store.Upload))
	defer cancel()
	v.host.shared().uploads.Add(1)
	defer v.host.shared().uploads.Add(-1)
	built := make(chan *batch, 1)
	done := make(chan error, 1)
	go func() {
		err := v.try(func() error { return v.publishBatches(ctx, built) })
		cancel()
		for b := range built { // batches that will not be published
			v.release(b)
		}
		done <- err
	}()
	err := v.try(func() error { return v.cutBatches(ctx, built) })
	close(built)
	if perr := <-done; perr != nil {
		err = perr
	}
	if errors.Is(err, errStale) {
		v.settle(barrierOf(v.currentView().man)) // only now: a batch that was being built reads what this gives up
	}
	v.uploadEnded(err)
}

// uploadEnded decides what an error of the uploader means: fenced is final, and so is whatever has ended the volume; the
// rest is tried again after a pause, since what is not settled is still in the log.
func (v *Volume) uploadEnded(err error) {
	var fenced *manifest.FencedError
	if v.ctx.Err() != nil || errors.Is(err, errStale) {
		err = nil
	} else if errors.As(err, &fenced) {
		v.die(fmt.Errorf("%w: %w", ErrFenced, err))
	} else if err != nil {
		v.host.Log.Error("upload failed", "disk", v.name, "err", err)
	}
	alive := v.ctx.Err() == nil && v.dead.Load() == nil
	v.mu.Lock()
	if err != nil && alive {
		v.offline.Store(&err)
		v.retryLocked()
	}
	v.mu.running, v.mu.failed = false, err
	again := err == nil && alive && !v.mu.paused && !v.mu.dirty.IsZero()
	v.broadcastLocked()
	v.mu.Unlock()
	if again {
		v.startUploader()
	}
}

// retryLocked starts the uploader after a pause. There is one such timer: Sync tries at once, and its failure is no reason
// to try more often from then on.
func (v *Volume) retryLocked() {
	if v.mu.retry != nil {
		v.mu.retry.Stop()
	}
	v.mu.retry = time.AfterFunc(uploadRetry, v.retryUpload)
}

// uploadRetry is the pause after an error that the store's own retries did not absorb.
const uploadRetry = 5 * time.Second

// cutBatches builds batches as they fall due, until the log is clean.
func (v *Volume) cutBatches(ctx context.Context, built chan<- *batch) error {
	v.mu.Lock()
	after := v.mu.settled
	v.mu.Unlock()
	var cutAt time.Time // what is not cut yet is younger
	for ctx.Err() == nil {
		if !v.waitDue(ctx, after, cutAt) {
			return nil
		}
		b, err := v.cut(after)
		if err != nil || b == nil {
			return err
		}
		v.takePending(b.bytes)
		if err := v.buildNext(ctx, b, after, built); err != nil {
			return err
		}
		after, cutAt = b.barrier.Seq, b.at
	}
	return nil
}

// buildNext builds a batch and hands it on. A small one waits until those before it are published, so that it sees the
// tail it will be put on: then it may take inline packs with it, and leave out zeros that hide nothing. A full one
// doesn't wait and does neither.
func (v *Volume) buildNext(ctx context.Context, b *batch, after uint64, built chan<- *batch) error {
	var top *view
	if b.bytes < v.host.Tuning.BatchBytes {
		v.waitSettled(ctx, after)
	}
	v.mu.Lock()
	if v.mu.settled >= after {
		top = v.mu.view
	}
	v.mu.Unlock()
	b.weight = min(batchMemory, b.bytes+1<<20)
	if err := v.host.shared().batches.Acquire(ctx, b.weight); err != nil {
		return nil // ctx ended
	}
	handed := false
	defer func() {
		if !handed {
			v.release(b)
		}
	}()
	if err := v.build(ctx, b, top); err != nil {
		return err
	}
	v.send(ctx, b)
	select {
	case built <- b:
		handed = true
	case <-ctx.Done():
	}
	return nil
}

// send begins to upload the pack of a batch, unless it rides in the manifest.
func (v *Volume) send(ctx context.Context, b *batch) {
	if b.pack == nil || b.rides(v.host.Tuning.InlineBytes) {
		return
	}
	v.unnamed.Add(1)
	b.counted = true
	b.sent = make(chan error, 1)
	go func() {
		b.sent <- v.try(func() error { return v.host.putPack(ctx, b.pack, &b.window) })
	}()
}

// waitSent waits for the end of what send began.
func (b *batch) waitSent() error {
	if b.sent == nil {
		return nil
	}
	err := <-b.sent
	b.sent = nil
	return err
}

// waitSettled waits until everything up to seq is in the store, or ctx ends.
func (v *Volume) waitSettled(ctx context.Context, seq uint64) {
	for {
		v.mu.Lock()
		settled, changed := v.mu.settled, v.mu.changed
		v.mu.Unlock()
		if settled >= seq {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (v *Volume) takePending(n int64) {
	v.mu.Lock()
	v.mu.pending = max(0, v.mu.pending-n)
	v.mu.Unlock()
}

// waitDue waits until a batch should be cut: enough is waiting, the oldest write is old enough, Sync or a full log asks.
// false: nothing is left to cut, or ctx ended.
func (v *Volume) waitDue(ctx context.Context, after uint64, cutAt time.Time) bool {
	for {
		v.mu.Lock()
		due, dirty := v.mu.pending >= v.host.Tuning.BatchBytes || v.mu.want > after || v.full.Load() != nil, v.mu.dirty
		paused := v.mu.paused
		v.mu.Unlock()
		if paused || v.log.LastSeq() <= after || dirty.IsZero() {
			return false
		}
		if dirty.Before(cutAt) {
			dirty = cutAt
		}
		left := v.host.uploadAge() - time.Since(dirty)
		if due || left <= 0 {
			return true
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-v.wake:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
		timer.Stop()
	}
}

// publishBatches moves built batches to the store, in order.
func (v *Volume) publishBatches(ctx context.Context, built <-chan *batch) error {
	for b := range built {
		if err := v.publishBatch(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

func (v *Volume) publishBatch(ctx context.Context, b *batch) error {
	defer v.release(b)
	if err := b.waitSent(); err != nil {
		return err
	}
	if err := v.failed(v.log.FlushThrough(b.barrier.Seq)); err != nil {
		return err
	}
	stale := false
	err := v.replace(ctx, b.window, func(next *manifest.Manifest) {
		if stale = !b.fits(next); !stale {
			b.into(next, v.host.Tuning.InlineBytes)
		}
	})
	if err == nil && stale {
		err = fmt.Errorf("upload %s: from record %d: %w", v.name, b.after, errStale)
	}
	if err != nil {
		return err
	}
	if b.pack != nil {
		v.host.shared().indexes.put(b.pack.Ref.Hash, b.pack.Index)
	}
	v.host.counters.batches.Add(1)
	v.named(b)
	v.settle(b.barrier)
	v.trimSoon()
	v.compactSoon()
	return nil
}

// errStale ends the uploader's run: an earlier manifest PUT, whose answer was lost, has brought more to the store than was
// known, and what is cut from before that must not go over it; or compaction took the inline packs that the batch did. The
// next run cuts anew.
var errStale = errors.New("the manifest is not the one the batch was cut for")

// putPack uploads a pack. w keeps when the first object of an update was written.
func (h *Host) putPack(ctx context.Context, p *pack.Pack, w *manifest.Window) error {
	began := time.Now()
	info, err := h.Store.Put(ctx, p.Ref.Hash.Key(), p.Body, store.Condition{})
	if err != nil {
		return fmt.Errorf("upload pack %s: %w", p.Ref.Hash, err)
	}
	if *w == (manifest.Window{}) {
		*w = manifest.Window{Local: began, Store: info.Modified}
	}
	return nil
}

// replace moves the manifest forward and publishes the view of it. Only then may the log forget anything.
func (v *Volume) replace(ctx context.Context, w manifest.Window, build func(next *manifest.Manifest)) error {
	if err := v.takeManifest(ctx); err != nil {
		return err
	}
	defer v.releaseManifest()
	if v.manifest.cell == nil {
		if err := v.connect(ctx); err != nil {
			return err
		}
	}
	if err := v.manifest.cell.Publish(store.With(ctx, store.Manifest), w, build); err != nil {
		return fmt.Errorf("manifest of %s: %w", v.name, err)
	}
	v.noteStore(nil)
	return v.adopt(v.manifest.cell)
}

// catchUp returns the view of what the store holds. An update takes effect there before it is known here: before its answer
// has come, which may be lost, and while it is kept beside the log.
func (v *Volume) catchUp(ctx context.Context) (*view, error) {
	if err := v.takeManifest(ctx); err != nil {
		return nil, err
	}
	defer v.releaseManifest()
	if v.manifest.cell == nil {
		err := v.connect(ctx)
		return v.currentView(), err
	}
	err := v.manifest.cell.Settle(ctx)
	if err == nil && v.currentView().man.Nonce != v.manifest.cell.Current().Nonce {
		err = v.adopt(v.manifest.cell)
	}
	return v.currentView(), err
}

// adopt keeps the manifest beside the log, for an open without the store, and publishes its view.
func (v *Volume) adopt(cell *manifest.Cell) error {
	v.mu.Lock()
	prev := v.mu.view
	v.mu.Unlock()
	vw, err := makeView(cell.Current(), prev)
	if err != nil {
		return err
	}
	// With the folder deleted below us nothing can be kept there, and nothing can be opened from there either.
	if err := v.log.Replace(keptManifest, cell.Raw()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	v.mu.Lock()
	v.mu.view = vw
	v.mu.Unlock()
	return nil
}

// settle tells the log and those who wait that everything up to the barrier is in the store.
func (v *Volume) settle(b wlog.Barrier) {
	if err := v.log.Settle(b); err != nil {
		_ = v.failed(err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.settled = b.Seq
	v.datedLocked(b.Seq)
	v.mu.dirty = time.Time{}
	if _, writes := v.log.Unsettled(); writes > 0 {
		v.mu.dirty = v.lastInstant
	} else {
		v.mu.want = 0
	}
	v.broadcastLocked()
}

// Sync returns when everything written before the call is in the store. progress, if any, is called as it goes. With
// the store unreachable it waits until ctx ends; an error of another kind ends it.
func (v *Volume) Sync(ctx context.Context, progress func(Progress)) error {
	if err := v.check(0, 0, false); err != nil || v.log == nil {
		return err
	}
	target := v.log.LastSeq()
	v.mu.Lock()
	v.mu.want = max(v.mu.want, target)
	v.mu.failed = nil // whatever it was, it is tried again now
	v.mu.Unlock()
	total, writes := v.log.Unsettled()
	if writes == 0 {
		return nil
	}
	v.startUploader()
	v.nudge()
	for {
		v.mu.Lock()
		settled, changed, failed := v.mu.settled, v.mu.changed, v.mu.failed
		v.mu.Unlock()
		left, writes := v.log.Unsettled()
		if progress != nil {
			progress(Progress{Left: left, Total: max(total, left)})
		}
		if settled >= target || writes == 0 {
			return nil
		}
		if p := v.dead.Load(); p != nil {
			return *p
		}
		if failed != nil && !store.Retryable(failed) {
			return fmt.Errorf("sync %s: %w", v.name, failed)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("sync %s: %w", v.name, ctx.Err())
		}
	}
}
