package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
)

// Salvage names objects that the disk's owner may have dropped since, which collectors don't reckon with: elsewhere what
// nothing names never comes back (package gc). One that has marked already would sweep them, although a new disk names them
// now. So that disk names only
//
//	young objects        a collector that takes them marks after the disk was made
//	what the old one     names before and after the new one was made: each mark meets it in one of the two
//	copies of its own    of what is neither

// youngFor leaves time until the new disk is made, which is within a quarter of Grace, and more.
const youngFor = manifest.Grace / 2

// holding says which objects need no copy.
type holding struct {
	named map[[32]byte]bool // packs, and pages at the top of levels, that the disk's present manifest names
	all   bool              // it can't be read: collectors delete nothing then
	young map[pack.Hash]bool
	used  [][32]byte // named objects that are relied on
}

func (h *holding) has(name [32]byte) bool {
	if !h.all && !h.named[name] {
		return false
	}
	h.used = append(h.used, name)
	return true
}

// hold looks at what the disk's present manifest names.
func (v *Volume) hold(ctx context.Context) (*holding, error) {
	h := &holding{named: map[[32]byte]bool{}}
	cell, err := manifest.Read(ctx, v.host.Store, v.name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return h, nil
	case errors.Is(err, manifest.ErrDamaged), errors.Is(err, manifest.ErrVersion):
		h.all = true
		return h, nil
	case err != nil:
		return nil, err
	}
	for _, l := range cell.Current().Levels {
		h.named[l.Page] = true
	}
	return h, v.eachPack(ctx, cell.Current(), func(r pack.Ref) error {
		h.named[r.Hash] = true
		return nil
	})
}

// eachPack calls fn for each pack that m names and doesn't carry itself.
func (v *Volume) eachPack(ctx context.Context, m *manifest.Manifest, fn func(pack.Ref) error) error {
	for _, t := range m.Tail {
		if t.Inline == nil {
			if err := fn(t.Ref); err != nil {
				return err
			}
		}
	}
	pages := manifest.NewPages(v.host.Store, 0)
	for _, l := range m.Levels {
		if err := pages.Walk(ctx, l, 0, ^uint64(0), fn); err != nil {
			return err
		}
	}
	return nil
}

// renew has m name copies of what may be swept, and of pages that name such.
func (v *Volume) renew(ctx context.Context, m *manifest.Manifest, h *holding, w *manifest.Window) error {
	for i := range m.Tail {
		if t := &m.Tail[i]; t.Inline == nil {
			var err error
			if t.Ref, err = v.keep(ctx, h, t.Ref, w); err != nil {
				return err
			}
		}
	}
	pages := manifest.NewPages(v.host.Store, 0)
	for i, l := range m.Levels {
		if h.has(l.Page) {
			continue
		}
		var refs []pack.Ref
		err := pages.Walk(ctx, l, 0, ^uint64(0), func(r pack.Ref) error {
			r, err := v.keep(ctx, h, r, w)
			refs = append(refs, r)
			return err
		})
		if err == nil {
			m.Levels[i], err = pages.Update(ctx, manifest.Root{}, 0, ^uint64(0), refs)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// keep returns a pack that will stay: r, or a copy of it under a name of its own.
func (v *Volume) keep(ctx context.Context, h *holding, r pack.Ref, w *manifest.Window) (pack.Ref, error) {
	if h.young[r.Hash] || h.has(r.Hash) {
		return r, nil
	}
	body, _, err := v.host.Store.Get(ctx, r.Hash.Key(), store.Range{})
	if err != nil {
		return r, err
	}
	p, err := pack.Rename(r, body)
	if err != nil {
		return r, v.host.damage("pack "+r.Hash.String(), err)
	}
	return p.Ref, v.host.putPack(ctx, p, w)
}

// stillHeld tells whether all that was relied on is named by the disk's present manifest.
func (v *Volume) stillHeld(ctx context.Context, before *holding) error {
	now, err := v.hold(ctx)
	if err != nil {
		return goneIsIncomplete(err)
	}
	for _, name := range before.used {
		if !now.has(name) {
			return fmt.Errorf("%w, %x among them, just now; try again", errIncomplete, name)
		}
	}
	return nil
}

// youngOf tells which of the packs are young, by the store's clock.
func (v *Volume) youngOf(ctx context.Context, modified map[pack.Hash]time.Time) (map[pack.Hash]bool, error) {
	now, err := v.host.Store.Now(ctx)
	if err != nil {
		return nil, err
	}
	young := map[pack.Hash]bool{}
	for hash, at := range modified {
		young[hash] = now.Sub(at) < youngFor
	}
	return young, nil
}
