package manifest

import (
	"context"
	"fmt"
	"math"
	"sort"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
)

// Pages reads and updates levels. Decoded pages are kept in a cache of bounded size (2Q: a walk over a whole map does not push out
// what guests use). One Pages serves all volumes of a store: forks share pages. Safe for concurrent use.
type Pages struct {
	st    store.Store
	cache *lru.TwoQueueCache[[32]byte, *page]

	mu struct {
		sync.Mutex
		loads map[[32]byte]*load
	}
}

// load is a page on its way; the fields are set before done is closed.
type load struct {
	done chan struct{}
	page *page
	err  error
}

// NewPages makes a cache of at most entries pages; a full page takes 48 KiB of memory.
func NewPages(st store.Store, entries int) *Pages {
	cache, err := lru.New2Q[[32]byte, *page](max(entries, 4))
	if err != nil {
		panic(err) // sizes from 4 up are valid
	}
	p := &Pages{st: st, cache: cache}
	p.mu.loads = map[[32]byte]*load{}
	return p
}

// Find returns the pack of the level whose range holds sector (its index may have nothing there yet). If there is none, ok is false
// and ref.First is where the next pack begins, MaxUint64 after the last. It may wait for the store, one request per depth.
func (p *Pages) Find(ctx context.Context, root Root, sector uint64) (ref pack.Ref, ok bool, err error) {
	none := pack.Ref{First: math.MaxUint64}
	for next := root; ; {
		if next.Packs == 0 {
			return none, false, nil
		}
		pg, err := p.page(ctx, next)
		if err != nil {
			return pack.Ref{}, false, err
		}
		if pg.depth == 0 {
			if i := pg.find(sector); i < len(pg.refs) {
				none.First = pg.refs[i].First
				if none.First <= sector {
					return pg.refs[i], true, nil
				}
			}
			return none, false, nil
		}
		i := pg.find(sector)
		if i == len(pg.children) {
			return none, false, nil
		}
		next = pg.children[i].Root
	}
}

// find returns the position of the first entry that ends after sector.
func (p *page) find(sector uint64) int {
	if p.depth == 0 {
		return sort.Search(len(p.refs), func(i int) bool { return p.refs[i].End > sector })
	}
	return sort.Search(len(p.children), func(i int) bool { return p.children[i].End > sector })
}

// Walk calls fn for each pack of the level whose range overlaps sectors [from, to), in address order, until fn returns an error,
// which Walk returns.
func (p *Pages) Walk(ctx context.Context, root Root, from, to uint64, fn func(pack.Ref) error) error {
	return p.WalkPages(ctx, root, from, to, func(Root) bool { return true }, fn)
}

// WalkPages is Walk that also visits the pages: enter is called for each before it is read, and those below are left out when it
// returns false.
func (p *Pages) WalkPages(ctx context.Context, root Root, from, to uint64, enter func(Root) bool, fn func(pack.Ref) error) error {
	if root.Packs == 0 || !enter(root) {
		return nil
	}
	pg, err := p.page(ctx, root)
	if err != nil {
		return err
	}
	for i := pg.find(from); i < len(pg.refs) && pg.refs[i].First < to; i++ {
		if err := fn(pg.refs[i]); err != nil {
			return err
		}
	}
	for i := pg.find(from); i < len(pg.children) && pg.children[i].First < to; i++ {
		if err := p.WalkPages(ctx, pg.children[i].Root, from, to, enter, fn); err != nil {
			return err
		}
	}
	return nil
}

// WalkWhole is Walk of a whole level, on sectors [0, end), that goes on where a page can't be read: broken is told the sectors
// whose packs only that page knows, and what is the matter.
func (p *Pages) WalkWhole(ctx context.Context, root Root, end uint64, broken func(first, end uint64, page Root, err error) error, fn func(pack.Ref) error) error {
	if root.Packs == 0 {
		return nil
	}
	return p.walkWhole(ctx, child{Root: root, End: end}, broken, fn)
}

func (p *Pages) walkWhole(ctx context.Context, c child, broken func(first, end uint64, page Root, err error) error, fn func(pack.Ref) error) error {
	pg, err := p.page(ctx, c.Root)
	if err != nil {
		return broken(c.First, c.End, c.Root, err)
	}
	for _, r := range pg.refs {
		if err := fn(r); err != nil {
			return err
		}
	}
	for _, below := range pg.children {
		if err := p.walkWhole(ctx, below, broken, fn); err != nil {
			return err
		}
	}
	return nil
}

// page returns a page from the cache or the store; callers that want the same page share one request.
func (p *Pages) page(ctx context.Context, r Root) (*page, error) {
	for {
		if pg, ok := p.cache.Get(r.Page); ok {
			return pg, nil
		}
		l, mine := p.claim(r)
		if mine {
			p.fetch(ctx, r, l)
			return l.page, l.err
		}
		select {
		case <-l.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("map page %x: %w", r.Page, ctx.Err())
		}
		if l.err == nil {
			return l.page, nil
		}
		// The one who asked may have given up for reasons of its own: ask again.
	}
}

func (p *Pages) claim(r Root) (l *load, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.mu.loads[r.Page]; l != nil {
		return l, false
	}
	l = &load{done: make(chan struct{})}
	p.mu.loads[r.Page] = l
	return l, true
}

func (p *Pages) fetch(ctx context.Context, r Root, l *load) {
	l.page, l.err = p.get(ctx, r)
	if l.err == nil {
		p.cache.Add(r.Page, l.page)
	}
	p.mu.Lock()
	delete(p.mu.loads, r.Page)
	p.mu.Unlock()
	close(l.done)
}

func (p *Pages) get(ctx context.Context, r Root) (*page, error) {
	b, _, err := p.st.Get(ctx, r.Key(), store.Range{})
	if err != nil {
		return nil, fmt.Errorf("map page %x: %w", r.Page, err)
	}
	return decodePage(r, b)
}
