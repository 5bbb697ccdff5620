package volume

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/pack"
)

// view is an immutable picture of what the store holds: a manifest and where to find the indexes it names.
type view struct {
	man  *manifest.Manifest
	tail []source // newest first
}

// source is one pack. An inline one carries its whole object.
type source struct {
	ref  pack.Ref
	pack *pack.Pack // inline packs only
}

// makeView reads nothing from the store; inline packs are decoded here, those prev has already are shared.
func makeView(man *manifest.Manifest, prev *view) (*view, error) {
	vw := &view{man: man}
	for _, t := range man.Tail {
		s := source{ref: t.Ref}
		if t.Inline != nil {
			if s.pack = prev.inline(t.Ref.Hash); s.pack == nil {
				p, err := pack.Parse(t.Inline)
				if err != nil {
					return nil, fmt.Errorf("manifest of %s: inline pack: %w", man.Name, err)
				}
				s.pack = p
			}
			s.ref = s.pack.Ref
		}
		vw.tail = append(vw.tail, s)
	}
	return vw, nil
}

func (vw *view) inline(h pack.Hash) *pack.Pack {
	if vw != nil {
		for _, s := range vw.tail {
			if s.pack != nil && s.ref.Hash == h {
				return s.pack
			}
		}
	}
	return nil
}

// overlaps tells whether a pack of the tail may know sectors of [first, end).
func (s *source) overlaps(first, end uint64) bool { return s.ref.First < end && first < s.ref.End }

func (v *Volume) currentView() *view {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mu.view
}

// part is a run of sectors that one frame of one pack holds.
type part struct {
	src   source
	ix    *pack.Index
	frame uint32
	off   int64 // bytes in the frame, uncompressed
	first uint64
	count uint64
}

// gap is a range that no source looked at so far knows.
type gap struct{ first, end uint64 }

// resolver walks the sources of a view, newest first, and collects the parts of a range. What nobody knows is zero.
type resolver struct {
	host       *Host
	parts      []part
	gaps, next []gap
}

// resolve fills r.parts, sorted by address, for [first, end).
func (r *resolver) resolve(ctx context.Context, vw *view, first, end uint64) error {
	r.parts, r.gaps = r.parts[:0], append(r.gaps[:0], gap{first, end})
	for i := range vw.tail {
		if len(r.gaps) == 0 {
			break
		}
		if s := &vw.tail[i]; s.overlaps(first, end) {
			if err := r.search(ctx, *s); err != nil {
				return err
			}
		}
	}
	for _, root := range vw.man.Levels {
		if len(r.gaps) == 0 {
			break
		}
		if err := r.searchLevel(ctx, root); err != nil {
			return err
		}
	}
	sort.Slice(r.parts, func(i, j int) bool { return r.parts[i].first < r.parts[j].first })
	return nil
}

// search takes from the gaps what s knows.
func (r *resolver) search(ctx context.Context, s source) error {
	ix, err := r.host.index(ctx, s)
	if err != nil {
		return err
	}
	r.next = r.next[:0]
	for _, g := range r.gaps {
		r.take(s, ix, g)
	}
	r.gaps, r.next = r.next, r.gaps
	return nil
}

// take moves what the index knows of g to the parts and the rest to r.next.
func (r *resolver) take(s source, ix *pack.Index, g gap) {
	sector := uint64(ix.SectorSize)
	for i := ix.Find(g.first); i < len(ix.Extents) && g.first < g.end; i++ {
		e := &ix.Extents[i]
		if e.First >= g.end {
			break
		}
		if e.First > g.first {
			r.next = append(r.next, gap{g.first, e.First})
			g.first = e.First
		}
		hi := min(g.end, e.First+e.Count)
		if e.Frame != pack.ZeroFrame {
			r.parts = append(r.parts, part{s, ix, e.Frame, int64(e.Off) + int64((g.first-e.First)*sector), g.first, hi - g.first})
		}
		g.first = hi
	}
	if g.first < g.end {
		r.next = append(r.next, g)
	}
}

// searchLevel takes from the gaps what the packs of one level know: at most one pack for any sector.
func (r *resolver) searchLevel(ctx context.Context, root manifest.Root) error {
	gaps := append([]gap(nil), r.gaps...)
	r.next = r.next[:0]
	for _, g := range gaps {
		for g.first < g.end {
			ref, ok, err := r.host.Pages.Find(ctx, root, g.first)
			if errors.Is(err, pack.ErrDamaged) {
				return r.host.damage("map page", err)
			} else if err != nil {
				return fmt.Errorf("map page: %w", err)
			}
			hi := min(g.end, ref.First)
			if !ok {
				r.next = append(r.next, gap{g.first, hi})
				g.first = hi
				continue
			}
			hi = min(g.end, ref.End)
			ix, err := r.host.index(ctx, source{ref: ref})
			if err != nil {
				return err
			}
			r.take(source{ref: ref}, ix, gap{g.first, hi})
			g.first = hi
		}
	}
	r.gaps, r.next = r.next, r.gaps
	return nil
}

// damaged marks an error as damage in the store, which is EIO and never old data.
func damaged(what string, err error) error {
	if errors.Is(err, pack.ErrDamaged) {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
