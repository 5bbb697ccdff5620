package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/pack"
)

// output writes what a merge yields as packs of full size, in address order, so that they don't overlap.
type output struct {
	v    *Volume
	refs []pack.Ref
	w    manifest.Window
}

// write merges [lo, hi) of m's sources.
func (o *output) write(ctx context.Context, m *merger, lo, hi uint64) error {
	bld := m.host.builder(m.sector)
	defer m.host.reuse(bld, m.sector)
	err := m.each(ctx, lo, hi, func(first, count uint64, data []byte) error {
		if data == nil {
			bld.AddZero(first, count)
			return nil
		}
		bld.Add(first, data)
		if int64(bld.Raw()) < o.v.host.Tuning.BatchBytes {
			return nil
		}
		return o.put(ctx, bld)
	})
	if err != nil {
		return err
	}
	return o.put(ctx, bld)
}

// put uploads what the builder has and empties it.
func (o *output) put(ctx context.Context, bld *pack.Builder) error {
	if bld.Size() == 0 {
		return nil
	}
	p, err := bld.Finish()
	if err != nil {
		return fmt.Errorf("merge %s: %w", o.v.name, err)
	}
	if err := o.v.host.putPack(ctx, p, &o.w); err != nil {
		return err
	}
	o.v.host.shared().indexes.put(p.Ref.Hash, p.Index)
	o.refs = append(o.refs, p.Ref)
	bld.Reset()
	return nil
}

// publish moves the manifest to name the new packs.
func (o *output) publish(ctx context.Context, build func(*manifest.Manifest) error) error {
	if o.w == (manifest.Window{}) { // build's map pages are the first objects
		o.w.Local = time.Now()
	}
	var failed error
	err := o.v.replace(ctx, o.w, func(next *manifest.Manifest) {
		before := next.Clone()
		if failed = build(next); failed != nil {
			*next = *before
		}
	})
	return errors.Join(failed, err)
}
