package volume

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"

	"golang.org/x/sync/errgroup"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
)

// Damage is a range of the disk, in bytes, that an object which is missing or damaged holds.
type Damage struct {
	Off, Len int64
	Object   string
	Err      error
}

// Report of Verify.
type Report struct {
	Objects int
	Bytes   int64
	Damage  []Damage // by offset
}

// verifyParallel bounds the packs that Verify holds in memory.
const verifyParallel = 3

// Verify reads every object that the disk's manifest names and checks every byte of it. progress is told bytes read and
// bytes in all. The error is about not being able to look; damage is in the report. A map page that is damaged or
// missing hides which packs are below it, so it stands for all sectors that it may know.
func Verify(ctx context.Context, h *Host, name string, progress func(done, total int64)) (Report, error) {
	h.shared()
	ctx = store.With(ctx, store.Admin)
	c := checker{host: h, progress: progress, read: map[pack.Hash]bool{}}
	gone := map[string]bool{}
	for again := true; again; {
		if err := c.look(ctx, name); err != nil {
			return c.report, fmt.Errorf("verify %s: %w", name, err)
		}
		again = c.moreGone(gone)
	}
	sort.Slice(c.report.Damage, func(i, j int) bool { return c.report.Damage[i].Off < c.report.Damage[j].Off })
	return c.report, nil
}

type checker struct {
	host     *Host
	man      *manifest.Manifest
	total    int64
	progress func(done, total int64)

	mu     sync.Mutex
	read   map[pack.Hash]bool // true: and found sound
	report Report
}

// look checks what the manifest names now, but for the packs that are known to be sound.
func (c *checker) look(ctx context.Context, name string) error {
	cell, err := manifest.Read(ctx, c.host.Store, name)
	if err != nil {
		return err
	}
	c.man, c.report.Damage = cell.Current(), nil
	c.total = max(c.total, stored(c.man))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(verifyParallel)
	err = c.each(ctx, func(r pack.Ref, inline []byte) {
		if !c.sound(r.Hash) {
			g.Go(func() error { return c.pack(ctx, r, inline) })
		}
	})
	if werr := g.Wait(); err == nil {
		err = werr
	}
	return err
}

func (c *checker) sound(h pack.Hash) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read[h]
}

// moreGone enters the objects that were not there in gone, and tells whether one is new. Then the manifest may not name it
// any more: the disk may be in use, its packs merged and swept meanwhile.
func (c *checker) moreGone(gone map[string]bool) bool {
	before := len(gone)
	for _, d := range c.report.Damage {
		if isGone(d.Err) {
			gone[d.Object] = true
		}
	}
	return len(gone) > before
}

func (c *checker) each(ctx context.Context, fn func(pack.Ref, []byte)) error {
	for _, t := range c.man.Tail {
		fn(t.Ref, t.Inline)
	}
	pages := manifest.NewPages(c.host.Store, 0) // what is in memory tells nothing about the store
	for _, l := range c.man.Levels {
		err := pages.WalkWhole(ctx, l, uint64(c.man.Size)/uint64(c.man.Sector), c.page, func(r pack.Ref) error {
			fn(r, nil)
			return ctx.Err()
		})
		if err != nil {
			return fmt.Errorf("map page: %w", err)
		}
	}
	return nil
}

// page reports a map page that can't be read: all that it may know.
func (c *checker) page(first, end uint64, page manifest.Root, err error) error {
	if !isGone(err) && !errors.Is(err, pack.ErrDamaged) {
		return err
	}
	c.add(Damage{Off: int64(first) * int64(c.man.Sector), Len: int64(end-first) * int64(c.man.Sector), Object: page.Key(), Err: err})
	return nil
}

func (c *checker) pack(ctx context.Context, r pack.Ref, body []byte) error {
	var err error
	if body == nil {
		body, _, err = c.host.Store.Get(ctx, r.Hash.Key(), store.Range{})
		if err != nil && !isGone(err) {
			return fmt.Errorf("pack %s: %w", r.Hash, err)
		}
	}
	p := (*pack.Pack)(nil)
	if err == nil {
		p, err = pack.Parse(body)
	}
	if err == nil && p.Ref.Hash != r.Hash && r.Hash != (pack.Hash{}) {
		err = fmt.Errorf("%w: its content has another hash", ErrDamaged)
	}
	sound := err == nil && c.frames(r, p)
	if err != nil {
		c.found(r, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, again := c.read[r.Hash]; !again {
		c.report.Objects++
		c.report.Bytes += int64(len(body))
	}
	c.read[r.Hash] = sound
	if c.progress != nil {
		c.progress(c.report.Bytes, c.total)
	}
	return nil
}

// found reports a pack as a whole: its index can't be trusted, so all it may hold.
func (c *checker) found(r pack.Ref, err error) {
	c.add(Damage{Off: int64(r.First) * int64(c.man.Sector), Len: int64(r.End-r.First) * int64(c.man.Sector), Object: r.Hash.Key(), Err: err})
}

func (c *checker) add(d Damage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Damage = append(c.report.Damage, d)
}

// frames checks each frame of a pack and reports the sectors in those that are damaged.
func (c *checker) frames(r pack.Ref, p *pack.Pack) (sound bool) {
	bad := map[uint32]error{}
	var buf []byte
	for i, f := range p.Index.Frames {
		data, err := p.Index.DecodeFrame(uint32(i), p.Body[f.Off:f.Off+f.Len], buf[:0])
		if err != nil {
			bad[uint32(i)] = err
			continue
		}
		buf = data
	}
	for _, e := range p.Index.Extents {
		if err := bad[e.Frame]; err != nil {
			c.add(Damage{Off: int64(e.First) * int64(c.man.Sector), Len: int64(e.Count) * int64(c.man.Sector), Object: r.Hash.Key(), Err: err})
		}
	}
	return len(bad) == 0
}
