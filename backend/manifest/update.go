package manifest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/zeebo/blake3"

	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
)

// Update returns the level root with every pack whose range overlaps sectors [from, to) taken out, as a whole, and add put in, which
// is in address order, does not overlap itself and lies within [from, to). Only pages on the way to what changes are written, as new
// objects; root stays what it was. The new pages are garbage until a manifest names the result: see Cell.Publish.
func (p *Pages) Update(ctx context.Context, root Root, from, to uint64, add []pack.Ref) (Root, error) {
	next, err := p.update(ctx, root, from, to, add)
	if err != nil {
		return Root{}, fmt.Errorf("update level: %w", err)
	}
	return next, nil
}

func (p *Pages) update(ctx context.Context, root Root, from, to uint64, add []pack.Ref) (Root, error) {
	end := from
	for _, r := range add {
		if r.First < end || r.End <= r.First || r.End > to {
			return Root{}, errors.New("packs are not in order within the range")
		}
		end = r.End
	}
	u := updater{p, ctx, from, to, add}
	top, err := u.top(root)
	if err == nil {
		top, err = u.rewrite(root.Depth, top)
	}
	for err == nil && len(top) > 1 {
		top, err = u.write(pieces(&page{depth: top[0].Depth + 1, children: top}))
	}
	if err != nil || len(top) == 0 {
		return Root{}, err
	}
	return u.lower(top[0].Root)
}

// updater is one Update.
type updater struct {
	*Pages
	ctx      context.Context
	from, to uint64
	add      []pack.Ref
}

func (u *updater) top(root Root) ([]child, error) {
	if root.Packs == 0 {
		return nil, nil
	}
	pg, err := u.page(u.ctx, root)
	if err != nil {
		return nil, err
	}
	c := pg.total()
	c.Page = root.Page
	return []child{c}, nil
}

// rewrite returns what takes the place of list: pages of one depth, in address order, all that the pages above them know of.
func (u *updater) rewrite(depth uint8, list []child) ([]child, error) {
	lo, hi := u.touched(list)
	if lo == hi && len(u.add) == 0 {
		return list, nil
	}
	pg, err := u.content(depth, list[lo:hi])
	if err != nil {
		return nil, err
	}
	// A page that has become small takes a neighbour in, so that the map of a disk that shrinks gets smaller too.
	if n := pg.len(); 0 < n && n < fewEntries && len(list) > hi-lo {
		if hi < len(list) {
			hi++
			err = u.join(pg, list[hi-1], false)
		} else {
			lo--
			err = u.join(pg, list[lo], true)
		}
	}
	if err != nil {
		return nil, err
	}
	made, err := u.write(pieces(pg))
	return slices.Concat(list[:lo], made, list[hi:]), err
}

// touched selects the pages that overlap the range; if there are none but something is to be added, the one beside it.
func (u *updater) touched(list []child) (lo, hi int) {
	for lo < len(list) && list[lo].End <= u.from {
		lo++
	}
	for hi = lo; hi < len(list) && list[hi].First < u.to; hi++ {
	}
	if lo == hi && len(u.add) > 0 {
		if lo > 0 {
			lo--
		} else if hi < len(list) {
			hi++
		}
	}
	return lo, hi
}

// content is what the touched pages hold after the update, in one page of any length. Pages that lie within the range as a whole are
// not even read; so at most two are.
func (u *updater) content(depth uint8, touched []child) (*page, error) {
	all := &page{depth: depth}
	for _, c := range touched {
		if c.First >= u.from && c.End <= u.to {
			continue
		}
		if err := u.join(all, c, false); err != nil {
			return nil, err
		}
	}
	if depth == 0 {
		all.refs = u.replace(all.refs)
		return all, nil
	}
	var err error
	all.children, err = u.rewrite(depth-1, all.children)
	return all, err
}

func (u *updater) replace(refs []pack.Ref) []pack.Ref {
	var before, after []pack.Ref
	for _, r := range refs {
		if r.End <= u.from {
			before = append(before, r)
		} else if r.First >= u.to {
			after = append(after, r)
		}
	}
	return slices.Concat(before, u.add, after)
}

// join adds the entries of page c to all, at its front or its end.
func (u *updater) join(all *page, c child, front bool) error {
	pg, err := u.page(u.ctx, c.Root)
	if err != nil {
		return err
	}
	a, b := all, pg
	if front {
		a, b = pg, all
	}
	all.refs, all.children = slices.Concat(a.refs, b.refs), slices.Concat(a.children, b.children)
	return nil
}

func (p *page) len() int { return len(p.refs) + len(p.children) }

// pieces divides a page of any length into ones of about the same length that are not too long.
func pieces(all *page) []*page {
	n := (all.len() + maxEntries - 1) / maxEntries
	pages := make([]*page, n)
	for i := range pages {
		lo, hi := i*all.len()/n, (i+1)*all.len()/n
		pages[i] = &page{depth: all.depth}
		if all.depth == 0 {
			pages[i].refs = slices.Clone(all.refs[lo:hi])
		} else {
			pages[i].children = slices.Clone(all.children[lo:hi])
		}
	}
	return pages
}

func (u *updater) write(pages []*page) ([]child, error) {
	var made []child
	for _, pg := range pages {
		body := pg.encode()
		c := pg.total()
		c.Page = blake3.Sum256(body)
		if _, err := decodePage(c.Root, body); err != nil {
			return nil, err
		}
		if _, err := u.st.Put(u.ctx, c.Key(), body, store.Condition{}); err != nil {
			return nil, fmt.Errorf("map page %x: %w", c.Page, err)
		}
		u.cache.Add(c.Page, pg)
		made = append(made, c)
	}
	return made, nil
}

// lower takes off pages at the top that have one child only.
func (u *updater) lower(root Root) (Root, error) {
	for root.Depth > 0 {
		pg, err := u.page(u.ctx, root)
		if err != nil {
			return Root{}, err
		}
		if len(pg.children) > 1 {
			break
		}
		root = pg.children[0].Root
	}
	return root, nil
}
