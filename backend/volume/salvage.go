package volume

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"time"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/vfs"
	"glidefs-appliance/backend/wlog"
)

// stranded opens the local log of a disk together with the last manifest this host published, whatever the store says
// now. Nothing is written. The volume is to be dropped, after an error too.
func stranded(h *Host, name string) (*Volume, *manifest.Manifest, error) {
	v := newVolume(h, name)
	if !wlog.Exists(h.FS, v.dir) {
		return v, nil, fmt.Errorf("%w: no write log of %q in %s", ErrNotFound, name, h.Logs)
	}
	raw, err := vfs.ReadFile(h.FS, filepath.Join(v.dir, keptManifest))
	if err != nil {
		return v, nil, fmt.Errorf("the manifest beside the log of %q: %w", name, err)
	}
	kept, err := manifest.Decode(raw)
	if err != nil {
		return v, nil, fmt.Errorf("%s/%s: %w", v.dir, keptManifest, err)
	}
	if err := v.newLog(kept.Volume); err != nil {
		return v, nil, err
	}
	v.setShape(kept)
	v.mu.view, err = makeView(kept, nil)
	return v, kept, err
}

// Salvage makes a new, detached disk of the last instant this host had in the store plus its log. The old disk and the
// log stay as they are. progress is told how much of the log is in the store, in bytes, after each batch.
func Salvage(ctx context.Context, h *Host, name, newName string, progress func(done, total int64)) error {
	if err := manifest.ValidName(newName); err != nil {
		return err
	}
	ctx = store.With(ctx, store.Admin)
	v, m, err := stranded(h, name)
	defer v.drop(ErrClosed)
	if err != nil {
		return fmt.Errorf("salvage %s: %w", name, err)
	}
	if err := v.salvage(ctx, m.Clone(), newName, progress); err != nil {
		return fmt.Errorf("salvage %s: %w", name, err)
	}
	return nil
}

func (v *Volume) salvage(ctx context.Context, m *manifest.Manifest, newName string, progress func(done, total int64)) error {
	if _, err := manifest.Read(ctx, v.host.Store, newName); !errors.Is(err, store.ErrNotFound) || errors.Is(err, manifest.ErrDeleting) {
		return errors.Join(fmt.Errorf("%w: %q", ErrExists, newName), err)
	}
	known := m.Clone()
	if _, err := v.complete(ctx, known); err != nil {
		return err
	}
	m.Volume, m.Name, m.Created = newID(), newName, time.Now()
	m.Owner, m.Since, m.Epoch = v.host.Owner, time.Now(), 1
	done, err := manifest.Announce(ctx, v.host.Store, m)
	if err != nil {
		return err
	}
	err = v.salvageInto(ctx, known, m, progress)
	if !errors.Is(err, manifest.ErrUnsettled) { // else the disk may come to be yet
		done()
	}
	return err
}

// salvageInto makes the disk m, known as far as it is in the store, of that and the log.
func (v *Volume) salvageInto(ctx context.Context, known, m *manifest.Manifest, progress func(done, total int64)) error {
	var w manifest.Window
	var done int64
	total, err := v.bytesAfter(m.Barrier.Seq)
	if err != nil {
		return err
	}
	for after := m.Barrier.Seq; ; {
		b, err := v.cut(after)
		if err != nil {
			return err
		}
		if b == nil {
			break
		}
		if err := v.salvageBatch(ctx, b, m, &w); err != nil {
			return err
		}
		after = b.barrier.Seq
		done += b.bytes
		progress(done, total)
	}
	m.Closed = true
	return v.settleNew(ctx, known, m, &w)
}

// bytesAfter counts what was written after seq.
func (v *Volume) bytesAfter(seq uint64) (n int64, err error) {
	err = v.log.Records(seq, func(r wlog.Record, _ *wlog.Segment) error {
		n += int64(r.Len)
		return nil
	})
	return n, err
}

// settleNew makes the new disk, of which known are the old one's objects, so that no collector takes any of it.
func (v *Volume) settleNew(ctx context.Context, known, m *manifest.Manifest, w *manifest.Window) error {
	begun := manifest.Window{Local: time.Now()}
	modified, err := v.complete(ctx, known) // the batches may have been hours
	if err != nil {
		return err
	}
	h, err := v.hold(ctx)
	if err != nil {
		return goneIsIncomplete(err)
	}
	if h.young, err = v.youngOf(ctx, modified); err != nil {
		return err
	}
	if err := v.renew(ctx, m, h, w); err != nil {
		return goneIsIncomplete(err)
	}
	if w.Late() || begun.Late() {
		return manifest.ErrLate
	}
	cell, err := manifest.Create(ctx, v.host.Store, m)
	if err != nil {
		return err
	}
	if err = v.stillHeld(ctx, h); err == nil && (w.Late() || begun.Late()) {
		err = manifest.ErrLate
	}
	if err != nil {
		return errors.Join(err, v.unmake(ctx, cell))
	}
	return nil
}

// unmake takes a disk away that was just made and may have holes.
func (v *Volume) unmake(ctx context.Context, cell *manifest.Cell) error {
	return cell.Replace(ctx, (*manifest.Manifest).Bury)
}

// complete tells whether the store still has all objects that m names: the other writer may have merged them, and a
// collector swept them. What this host has in memory and in its clean cache proves nothing. It returns when the packs were
// written.
func (v *Volume) complete(ctx context.Context, m *manifest.Manifest) (map[pack.Hash]time.Time, error) {
	modified := map[pack.Hash]time.Time{}
	missing := map[pack.Hash]bool{}
	err := v.eachPack(ctx, m, func(r pack.Ref) error {
		missing[r.Hash] = true
		return nil
	})
	if err != nil {
		return nil, goneIsIncomplete(err)
	}
	for info, err := range v.host.Store.List(ctx, "packs/", "") {
		if err != nil {
			return nil, err
		}
		if hash, err := pack.ParseHash(path.Base(info.Key)); err == nil && missing[hash] {
			delete(missing, hash)
			modified[hash] = info.Modified
		}
	}
	for hash := range missing {
		return nil, fmt.Errorf("%w: %d packs, one is %s", errIncomplete, len(missing), hash)
	}
	return modified, nil
}

// goneIsIncomplete has no "not found" in it, which would be taken for the disk's.
func goneIsIncomplete(err error) error {
	if !isGone(err) {
		return err
	}
	return fmt.Errorf("%w: %v", errIncomplete, err)
}

var errIncomplete = errors.New("the store no longer has all of the last instant that this host knew: its owner has replaced objects since")

func (v *Volume) salvageBatch(ctx context.Context, b *batch, m *manifest.Manifest, w *manifest.Window) error {
	b.weight = min(batchMemory, b.bytes+1<<20)
	if err := v.host.shared().batches.Acquire(ctx, b.weight); err != nil {
		return err
	}
	defer v.release(b)
	if err := v.build(ctx, b, nil); err != nil {
		return err
	}
	if b.pack != nil {
		if err := v.host.putPack(ctx, b.pack, w); err != nil {
			return err
		}
	}
	b.into(m, 0)
	return nil
}

// Abandon drops this host's log of a disk and its claim on the disk; it returns how many writes were only there. With
// dry nothing is changed.
func Abandon(ctx context.Context, h *Host, name string, dry bool) (writes uint64, err error) {
	ctx = store.With(ctx, store.Admin)
	cell, err := manifest.Read(ctx, h.Store, name)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return 0, fmt.Errorf("abandon %s: %w", name, err)
	}
	ours := err == nil && cell.Current().Owner.State == h.Owner.State && !cell.Current().Closed
	v := newVolume(h, name)
	defer v.drop(ErrClosed)
	if !wlog.Exists(h.FS, v.dir) {
		if !ours {
			return 0, fmt.Errorf("abandon %s: %w: no write log in %s, and the disk is not this host's", name, ErrNotFound, h.Logs)
		}
	} else if writes, err = v.onlyHere(); err != nil {
		return 0, fmt.Errorf("abandon %s: %w", name, err)
	}
	if dry {
		return writes, nil
	}
	if ours {
		if err := cell.Replace(ctx, func(next *manifest.Manifest) { next.Closed = true }); err != nil {
			return writes, fmt.Errorf("abandon %s: %w", name, err)
		}
	}
	return writes, v.removeLog()
}
