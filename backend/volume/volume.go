package volume

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/wlog"
	"glidefs-appliance/frontends"
)

// Volume is an attached disk. Its methods are safe for concurrent use; those of frontends.Disk may block as that
// interface says.
type Volume struct {
	host   *Host
	name   string
	dir    string
	sector int64
	unit   uint64 // of log places in a sector: 512-byte units
	size   atomic.Int64
	log    *wlog.Log // nil when read-only

	dead atomic.Pointer[error] // fenced, failed or closed: what every operation returns

	reads *semaphore.Weighted // this disk's part of shared.reads, which is waited for with it held

	edge chan struct{} // holds a value while an odd write runs
	mu   struct {
		sync.Mutex
		m       extmap
		view    *view
		pending int64     // bytes committed since the last cut
		punched int64     // bytes zeroed since the log was trimmed
		dirty   time.Time // no later than the oldest write that is not in the store; zero when clean
		settled uint64    // seq
		want    uint64    // Sync asks for everything up to this seq
		changed chan struct{}
		running bool        // the uploader
		paused  bool        // see Pause
		failed  error       // why it ended; it starts again after a pause
		retry   *time.Timer // ends the last such pause
		closed  bool        // nothing is spawned any more
	}
	manifest struct {
		turn chan struct{}  // holds a value while somebody has the cell
		cell *manifest.Cell // nil while attached without the store
	}

	ctx         context.Context // ends when the volume closes: the uploader's, compaction's and prefetch's
	cancel      context.CancelFunc
	background  sync.WaitGroup
	wake        chan struct{} // the uploader's
	marks       []mark        // guarded by mu: see instant
	lastInstant time.Time     // guarded by mu: of the settled barrier
	compacting  atomic.Bool
	unnamed     atomic.Int32   // batches whose packs are in the store, or on their way, and perhaps in no manifest yet
	turns       map[int]uint64 // where the next merge out of a level begins; only the compaction touches it
	lost        lostObjects
	waiting     atomic.Int32
	full        atomic.Pointer[error] // why requests wait for room: nil, errLogFull or the file system's error
	offline     atomic.Pointer[error] // the last background error of the store
	streams     streams
}

var errLogFull = errors.New("the write log is full: writes wait for the upload")

var (
	_ frontends.Disk   = (*Volume)(nil)
	_ frontends.Mapper = (*Volume)(nil)
)

func newVolume(h *Host, name string) *Volume {
	h.shared()
	v := &Volume{host: h, name: name, dir: filepath.Join(h.Logs, name), turns: map[int]uint64{}}
	v.wake, v.edge, v.reads = make(chan struct{}, 1), make(chan struct{}, 1), semaphore.NewWeighted(readMemory/2)
	v.mu.changed = make(chan struct{})
	v.manifest.turn = make(chan struct{}, 1)
	v.ctx, v.cancel = context.WithCancel(context.Background())
	return v
}

// Name of the disk.
func (v *Volume) Name() string { return v.name }

// Size in bytes.
func (v *Volume) Size() int64 { return v.size.Load() }

// SectorSize in bytes: the logical block.
func (v *Volume) SectorSize() int { return int(v.sector) }

// ReadOnly tells whether the disk was attached for reading only.
func (v *Volume) ReadOnly() bool { return v.log == nil }

// check refuses an operation on [off, off+n).
func (v *Volume) check(off, n int64, write bool) error {
	if p := v.dead.Load(); p != nil {
		return *p
	}
	if off < 0 || n < 0 || off > v.size.Load()-n {
		return fmt.Errorf("%w: [%d, %d) of %d bytes", frontends.ErrOutOfRange, off, off+n, v.size.Load())
	}
	if write && v.log == nil {
		return frontends.ErrReadOnly
	}
	return nil
}

// die makes every operation from now on return err. The first reason stands.
func (v *Volume) die(err error) {
	if v.dead.CompareAndSwap(nil, &err) {
		if v.log != nil {
			v.log.Kill(err)
		}
		v.mu.Lock()
		v.broadcastLocked()
		v.mu.Unlock()
	}
}

// ended tells why, when v.ctx has.
func (v *Volume) ended() error {
	if p := v.dead.Load(); p != nil {
		return *p
	}
	return ErrClosed
}

// takeManifest waits for the turn to update the manifest: updates take requests, so waiting ends with ctx.
func (v *Volume) takeManifest(ctx context.Context) error {
	select {
	case v.manifest.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("manifest of %s: %w", v.name, ctx.Err())
	}
}

func (v *Volume) releaseManifest() { <-v.manifest.turn }

// spawn runs fn in the background unless the volume is closing.
func (v *Volume) spawn(fn func()) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mu.closed {
		return false
	}
	v.background.Add(1)
	go func() {
		defer v.background.Done()
		v.contain(fn)
	}()
	return true
}

// stop ends the background work and waits for it.
func (v *Volume) stop() {
	v.mu.Lock()
	v.mu.closed = true
	v.mu.Unlock()
	v.cancel()
	v.background.Wait()
}

// broadcastLocked wakes whoever waits for the uploader.
func (v *Volume) broadcastLocked() {
	close(v.mu.changed)
	v.mu.changed = make(chan struct{})
}

// Flush returns once everything acknowledged before survives a power cut.
func (v *Volume) Flush(ctx context.Context) error {
	if err := v.check(0, 0, false); err != nil || v.log == nil {
		return err
	}
	return v.failed(v.log.Flush())
}

// failed turns an error of the log into the volume's end: what a failed sync or record write covers is unknown.
func (v *Volume) failed(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	v.die(fmt.Errorf("%w: %w", ErrFailed, err))
	return *v.dead.Load()
}

// Kill ends the volume at once: requests that wait get err, the log stays as it is.
func (v *Volume) Kill(err error) {
	v.die(err)
	v.stop()
}

// Status of the volume.
func (v *Volume) Status() Status {
	v.mu.Lock()
	man, dirty := v.mu.view.man, v.mu.dirty
	v.mu.Unlock()
	s := Status{
		Name: v.name, Size: v.Size(), Sector: int(v.sector), Epoch: man.Epoch, ReadOnly: v.log == nil,
		BarrierSeq: man.Barrier.Seq, BarrierTime: man.BarrierTime, State: "ok",
		UploadedSize: stored(man), OldestDirty: dirty,
	}
	s.Lost, _ = v.lost.total()
	if v.log != nil {
		s.DirtyBytes, s.DirtyWrites = v.log.Unsettled()
		s.LogBytes = v.log.Bytes()
		s.Waiting = int(v.waiting.Load())
	}
	s.State, s.Reason = v.state()
	return s
}

func (v *Volume) state() (state, reason string) {
	if p := v.dead.Load(); p != nil {
		if errors.Is(*p, ErrFenced) {
			return "fenced", (*p).Error()
		}
		return "failed", (*p).Error()
	}
	if p := v.full.Load(); p != nil {
		return "log full", (*p).Error()
	}
	if p := v.offline.Load(); p != nil {
		return "offline", (*p).Error()
	}
	return "ok", ""
}

// stored is the size of what a manifest names, in bytes.
func stored(m *manifest.Manifest) int64 {
	n := int64(0)
	for _, t := range m.Tail {
		n += int64(t.Ref.Size)
	}
	for _, l := range m.Levels {
		n += int64(l.Bytes)
	}
	return n
}
