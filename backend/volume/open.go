package volume

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/vfs"
	"glidefs-appliance/backend/wlog"
)

// keptManifest is the file beside the log head that holds the last manifest this host published: a disk that crashed
// opens with it while the store can't be reached.
const keptManifest = "manifest"

// Open attaches a disk. It blocks on the store, but for a disk that was not detached here (a crash, a reboot), which
// opens without it. Errors: ErrNotFound, *OwnedError, *LogMissingError, *LogForeignError, *SizeError, wlog's damage.
func Open(ctx context.Context, h *Host, name string, o OpenOptions) (*Volume, error) {
	if err := manifest.ValidName(name); err != nil {
		return nil, err
	}
	v := newVolume(h, name)
	if err := v.try(func() error { return v.open(store.With(ctx, store.Manifest), o) }); err != nil {
		v.drop(err)
		return nil, fmt.Errorf("attach %s: %w", name, err)
	}
	return v, nil
}

// offlineAfter is how long the store may take to answer before a disk that can do without it is opened without it.
const offlineAfter = 10 * time.Second

func (v *Volume) open(ctx context.Context, o OpenOptions) error {
	if o.ReadOnly || o.Takeover || !wlog.Exists(v.host.FS, v.dir) {
		return v.openOnline(ctx, o)
	}
	short, cancel := context.WithTimeout(ctx, offlineAfter)
	defer cancel()
	err := v.openOnline(short, o)
	if err != nil && ctx.Err() == nil && (store.Retryable(err) || errors.Is(err, context.DeadlineExceeded)) {
		return v.openOffline(err)
	}
	return err
}

func (v *Volume) openOnline(ctx context.Context, o OpenOptions) error {
	cell, err := manifest.Find(ctx, v.host.Store, v.name)
	switch {
	case err != nil:
		return err
	case cell.Vacant():
		return v.create(ctx, cell, o)
	case o.ReadOnly:
		return v.adoptReadOnly(cell)
	}
	man := cell.Current()
	if err := v.mayWrite(man, o.Takeover); err != nil {
		return err
	}
	if err := v.openLog(man); err != nil {
		return err
	}
	fresh := len(v.log.Head().Incarnations) == 0
	if !fresh { // first: should the PUT below get no answer, the disk opens with what the log is about to drop
		if err := v.log.Replace(keptManifest, cell.Raw()); err != nil {
			return err
		}
	}
	id := wlog.LogID(newID())
	if err := v.log.Start(id); err != nil {
		return err
	}
	if cell, err = v.claim(ctx, cell, func(next *manifest.Manifest) {
		v.own(next, id)
		if fresh { // seqs begin anew: the manifest is exact up to the beginning of this log
			next.Barrier = manifest.Barrier{Log: id}
		}
	}); err != nil {
		return err
	}
	v.manifest.cell = cell
	return v.begin(cell)
}

// claim replaces the manifest at an attach. A PUT of the process that had the disk here before may arrive only now: it
// is ours, so look again, once.
func (v *Volume) claim(ctx context.Context, cell *manifest.Cell, own func(*manifest.Manifest)) (*manifest.Cell, error) {
	err := cell.Replace(ctx, own)
	var fenced *manifest.FencedError
	if errors.As(err, &fenced) && fenced.Owner.State == v.host.Owner.State {
		if cell, err = manifest.Read(ctx, v.host.Store, v.name); err != nil {
			return nil, err
		}
		if reason := v.foreign(cell.Current()); reason != "" {
			return nil, fmt.Errorf("%w: %s", ErrFenced, reason)
		}
		err = cell.Replace(ctx, own)
	}
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return cell, nil
}

// own enters this host as the writer.
func (v *Volume) own(next *manifest.Manifest, id wlog.LogID) {
	next.Epoch++
	next.Owner, next.Since, next.Closed, next.Log = v.host.Owner, time.Now(), false, id
}

func newID() (id [16]byte) {
	_, _ = rand.Read(id[:]) // never fails: crypto/rand
	return id
}

// begin publishes the first view and fills the map from what the log kept.
func (v *Volume) begin(cell *manifest.Cell) error {
	v.setShape(cell.Current())
	if err := v.settleOpen(cell.Current()); err != nil {
		return err
	}
	if err := v.adopt(cell); err != nil {
		return err
	}
	return v.replay()
}

// settleOpen tells the log what the manifest covers. A batch cut from before that would put old data over new.
func (v *Volume) settleOpen(m *manifest.Manifest) error {
	b := barrierOf(m)
	if b.Seq <= v.log.Head().Settled.Seq || !v.log.Contains(b) {
		return nil
	}
	return v.log.Settle(b)
}

func (v *Volume) setShape(m *manifest.Manifest) {
	v.sector, v.unit = int64(m.Sector), uint64(m.Sector)/512
	v.mu.m.unit = v.unit
	v.size.Store(m.Size)
}

// replay enters the records of the log in the map. Those beyond the barrier are dirty.
func (v *Volume) replay() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.settled = v.log.Head().Settled.Seq
	dirty := false
	err := v.log.Records(0, func(r wlog.Record, _ *wlog.Segment) error {
		v.placeLocked(&r)
		if r.Seq > v.mu.settled {
			dirty = true
			if r.Kind == wlog.KindWrite {
				v.mu.pending += int64(r.Count) * v.sector
			}
		}
		return nil
	})
	if err == nil && dirty {
		v.mu.dirty = v.mu.view.man.BarrierTime
		if v.mu.dirty.IsZero() {
			v.mu.dirty = v.mu.view.man.Since
		}
		go v.startUploader()
	}
	return err
}

// create makes the disk with the one PUT that needs.
func (v *Volume) create(ctx context.Context, cell *manifest.Cell, o OpenOptions) error {
	if o.Create == 0 || o.ReadOnly {
		return ErrNotFound
	}
	if o.Sector == 0 {
		o.Sector = 4096
	}
	if o.Create < 0 || o.Sector != 512 && o.Sector != 4096 || o.Create%int64(o.Sector) != 0 {
		return fmt.Errorf("create: %d bytes in sectors of %d: must be whole sectors of 512 or 4096", o.Create, o.Sector)
	}
	m := &manifest.Manifest{Volume: newID(), Name: v.name, Size: o.Create, Sector: o.Sector, Created: time.Now()}
	id := wlog.LogID(newID())
	v.own(m, id)
	if wlog.Exists(v.host.FS, v.dir) {
		if err := v.settleForeign(nil, "the store has no such disk"); err != nil {
			return err
		}
	}
	if err := v.newLog(m.Volume); err != nil {
		return err
	}
	if err := v.log.Start(id); err != nil {
		return err
	}
	if err := cell.Create(ctx, m); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	v.manifest.cell = cell
	return v.begin(cell)
}

// mayWrite refuses a disk that another state dir wrote last and did not close.
func (v *Volume) mayWrite(m *manifest.Manifest, takeover bool) error {
	if m.Closed || takeover || m.Owner.State == v.host.Owner.State {
		return nil
	}
	return &OwnedError{Name: v.name, Host: m.Owner.Host, Since: m.Since, Last: m.BarrierTime}
}

// openLog opens the log that continues m, or a new one where none is due.
func (v *Volume) openLog(m *manifest.Manifest) error {
	if !wlog.Exists(v.host.FS, v.dir) {
		if m.Owner.State == v.host.Owner.State && !m.Closed {
			return &LogMissingError{Name: v.name, Dir: v.dir, Last: m.BarrierTime}
		}
		return v.newLog(m.Volume)
	}
	err := v.newLog(m.Volume)
	if errors.Is(err, wlog.ErrForeign) {
		return v.settleForeign(m, "it belongs to another disk of this name")
	}
	if err != nil {
		return err
	}
	if reason := v.foreign(m); reason != "" {
		return v.settleForeign(m, reason)
	}
	return v.dropKnown(m)
}

// dropKnown leaves after a reboot only what is beyond the barrier.
func (v *Volume) dropKnown(m *manifest.Manifest) error {
	if v.log.Head().SameBoot {
		return nil
	}
	return v.log.DropThrough(m.Barrier.Seq)
}

func barrierOf(m *manifest.Manifest) wlog.Barrier {
	return wlog.Barrier{Log: m.Barrier.Log, Seq: m.Barrier.Seq, Chain: m.Barrier.Chain}
}

// foreign tells why the log does not continue m; "" when it does. The manifest must have been written by an incarnation
// of this very log, and its barrier must be a record of it: else the log is older than the store (restored from a
// backup, taken over) or the store older than the log (rolled back).
func (v *Volume) foreign(m *manifest.Manifest) string {
	head, b := v.log.Head(), barrierOf(m)
	known := slices.ContainsFunc(head.Incarnations, func(i wlog.Incarnation) bool { return i.ID == m.Log })
	switch {
	case m.Owner.State != v.host.Owner.State:
		return "another host has written the disk since"
	case !known:
		return "the store was written by an attach that this log does not know"
	case b.Seq < head.Settled.Seq:
		return "the store is older than what this host had uploaded: it was rolled back"
	case b.Seq > 0 && !v.log.Contains(b):
		return "the log ends before what the store holds: it is an old copy"
	}
	return ""
}

// settleForeign throws a foreign log away when nothing is only there, and refuses the attach otherwise. m is the store's
// manifest, nil when it has none.
func (v *Volume) settleForeign(m *manifest.Manifest, reason string) error {
	writes, err := v.onlyHere()
	if err != nil {
		return err
	}
	if writes > 0 {
		e := &LogForeignError{Name: v.name, Dir: v.dir, Writes: writes, Reason: reason}
		if m != nil {
			e.Host, e.Since = m.Owner.Host, m.Since
		}
		return e
	}
	if err := v.removeLog(); err != nil || m == nil {
		return err
	}
	return v.newLog(m.Volume)
}

// onlyHere counts the writes in the local log beyond the last barrier this host knows of, whatever disk it belongs to.
func (v *Volume) onlyHere() (writes uint64, err error) {
	raw, err := vfs.ReadFile(v.host.FS, filepath.Join(v.dir, keptManifest))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // it never got as far as an attach
	} else if err != nil {
		return 0, err
	}
	kept, err := manifest.Decode(raw)
	if err != nil {
		return 0, fmt.Errorf("%s/%s: %w", v.dir, keptManifest, err)
	}
	if v.log == nil {
		if err := v.newLog(kept.Volume); err != nil {
			return 0, err
		}
	}
	after := v.log.Head().Settled.Seq
	if v.log.Contains(barrierOf(kept)) { // the head learns of a barrier later
		after = max(after, kept.Barrier.Seq)
	}
	err = v.log.Records(after, func(r wlog.Record, _ *wlog.Segment) error {
		if r.Flags&wlog.FlagEnd != 0 {
			writes++
		}
		return nil
	})
	return writes, err
}

func (v *Volume) logOptions(volume [16]byte) wlog.Options {
	return wlog.Options{
		FS: v.host.FS, Dir: v.dir, Volume: volume, BootID: v.host.BootID, Budget: v.host.Budget,
		SegmentSize: v.host.Tuning.SegmentBytes, Evict: v.evict, Full: v.noteFull, AppendGroup: v.appendGroup,
		Contain: v.contain,
	}
}

func (v *Volume) newLog(volume [16]byte) error {
	l, err := wlog.Open(v.logOptions(volume))
	if err == nil {
		v.log = l
	}
	return err
}

func (v *Volume) removeLog() error {
	if v.log == nil {
		return v.host.FS.RemoveAll(v.dir)
	}
	l := v.log
	v.log = nil
	return l.Remove()
}

// openOffline opens a disk that was not detached here with the manifest kept beside its log. The epoch is raised, and
// the manifest checked against the store's, before the first upload.
func (v *Volume) openOffline(cause error) error {
	raw, err := vfs.ReadFile(v.host.FS, filepath.Join(v.dir, keptManifest))
	if err != nil {
		return cause
	}
	m, err := manifest.Decode(raw)
	if err != nil {
		return errors.Join(cause, err)
	}
	if m.Closed || m.Owner.State != v.host.Owner.State {
		return cause
	}
	if v.log != nil { // the store answered at first
		v.log.Kill(cause)
		_ = v.log.Close()
	}
	if err := v.newLog(m.Volume); err != nil {
		return err
	}
	if reason := v.foreign(m); reason != "" { // only the store can tell what is to become of it
		return fmt.Errorf("%w; the manifest beside the write log does not fit it: %s", cause, reason)
	}
	if err := v.dropKnown(m); err != nil {
		return err
	}
	if err := v.log.Start(wlog.LogID(newID())); err != nil {
		return err
	}
	if err := v.settleOpen(m); err != nil {
		return err
	}
	v.setShape(m)
	if v.mu.view, err = makeView(m, nil); err != nil {
		return err
	}
	v.noteStore(cause)
	return v.replay()
}

// connect ends an attach without the store: the store's manifest must be one that an incarnation of this log wrote.
// In the manifest's turn.
func (v *Volume) connect(ctx context.Context) error {
	cell, err := manifest.Read(ctx, v.host.Store, v.name)
	if errors.Is(err, store.ErrNotFound) {
		v.die(fmt.Errorf("%w: %w", ErrFenced, err))
	}
	if err != nil {
		return err
	}
	if reason := v.foreign(cell.Current()); reason != "" {
		err := fmt.Errorf("%w: %s", ErrFenced, reason)
		v.die(err)
		return err
	}
	inc := v.log.Head().Incarnations
	id := inc[len(inc)-1].ID
	if cell, err = v.claim(ctx, cell, func(next *manifest.Manifest) { v.own(next, id) }); err != nil {
		return err
	}
	v.manifest.cell = cell
	return v.adopt(cell)
}

// adoptReadOnly attaches at the store's last instant, without a log.
func (v *Volume) adoptReadOnly(cell *manifest.Cell) error {
	v.setShape(cell.Current())
	vw, err := makeView(cell.Current(), nil)
	v.mu.view = vw
	return err
}

// refresh reads the manifest again, for a read-only volume whose packs are gone.
func (v *Volume) refresh(ctx context.Context) (*view, error) {
	cell, err := manifest.Read(ctx, v.host.Store, v.name)
	if err != nil {
		return nil, err
	}
	prev := v.currentView()
	if cell.Current().Volume != prev.man.Volume {
		return nil, fmt.Errorf("%s: %w: it was deleted, and another disk has its name now", v.name, store.ErrNotFound)
	}
	if cell.Current().Nonce == prev.man.Nonce {
		return prev, nil
	}
	vw, err := makeView(cell.Current(), prev)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	v.mu.view = vw
	v.mu.Unlock()
	return vw, nil
}
