package manifest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
)

// counter counts requests.
type counter struct {
	*mem.Store
	gets, puts atomic.Int64
}

func (c *counter) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	c.gets.Add(1)
	return c.Store.Get(ctx, key, r)
}

func (c *counter) Put(ctx context.Context, key string, body []byte, cond store.Condition) (store.Info, error) {
	c.puts.Add(1)
	return c.Store.Put(ctx, key, body, cond)
}

// spread makes n packs of 100 sectors with gaps of 100.
func spread(from uint64, n int) (refs []pack.Ref) {
	for i := range uint64(n) {
		refs = append(refs, ref(from+200*i, from+200*i+100))
	}
	return refs
}

func all(t *testing.T, p *Pages, root Root) (refs []pack.Ref) {
	t.Helper()
	err := p.Walk(t.Context(), root, 0, math.MaxUint64, func(r pack.Ref) error {
		refs = append(refs, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return refs
}

// model is what a level must hold.
type model []pack.Ref

func (m model) update(from, to uint64, add []pack.Ref) model {
	next := slices.Clone(add)
	for _, r := range m {
		if r.End <= from || r.First >= to {
			next = append(next, r)
		}
	}
	slices.SortFunc(next, func(a, b pack.Ref) int {
		if a.First < b.First {
			return -1
		}
		return 1
	})
	return next
}

func (m model) compare(t *testing.T, p *Pages, root Root) {
	t.Helper()
	if got := all(t, p, root); !slices.Equal(got, m) {
		t.Fatalf("%d packs, want %d", len(got), len(m))
	}
	var packs, size, sectors uint64
	for _, r := range m {
		packs, size, sectors = packs+1, size+uint64(r.Size), sectors+r.Sectors
	}
	if root.Packs != packs || root.Bytes != size || root.Sectors != sectors {
		t.Fatalf("%+v, want %d packs, %d bytes, %d sectors", root, packs, size, sectors)
	}
}

// grow fills [from, to) with random packs, not too many.
func grow(r *rand.Rand, from, to uint64) (refs []pack.Ref) {
	for at, most := from, r.IntN(900); at < to && len(refs) < most; {
		first := at + r.Uint64N(50)
		end := first + 1 + r.Uint64N(100)
		if end > to {
			break
		}
		refs = append(refs, ref(first, end))
		at = end
	}
	return refs
}

func TestUpdateAgainstModel(t *testing.T) {
	const disk = 200_000
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			st := mem.New()
			p := NewPages(st, 8) // most reads come from the store
			var root Root
			var want model
			for range 60 {
				from := r.Uint64N(disk)
				to := from + 1 + r.Uint64N(disk/[]uint64{100, 10, 1}[r.IntN(3)])
				var add []pack.Ref
				if r.IntN(4) > 0 {
					add = grow(r, from, to)
				}
				old, oldWant := root, want
				root = must[Root](t)(p.Update(t.Context(), root, from, to, add))
				want = want.update(from, to, add)
				want.compare(t, p, root)
				oldWant.compare(t, p, old) // copy on write: what a snapshot names is untouched
				find(t, p, root, want, r)
				shape(t, p, root)
			}
		})
	}
}

// find compares look-ups at borders and at random.
func find(t *testing.T, p *Pages, root Root, want model, r *rand.Rand) {
	t.Helper()
	for range 20 {
		sector := r.Uint64N(250_000)
		if len(want) > 0 && r.IntN(2) == 0 {
			x := want[r.IntN(len(want))]
			sector = []uint64{x.First, x.End - 1, x.End, max(x.First, 1) - 1}[r.IntN(4)]
		}
		got, ok, err := p.Find(t.Context(), root, sector)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(want, func(r pack.Ref) bool { return r.End > sector })
		switch {
		case i < 0:
			if ok || got.First != math.MaxUint64 {
				t.Fatalf("found %+v after the last pack", got)
			}
		case want[i].First <= sector:
			if !ok || got != want[i] {
				t.Fatalf("sector %d: %v %+v, want %+v", sector, ok, got, want[i])
			}
		default:
			if ok || got.First != want[i].First {
				t.Fatalf("sector %d: %v, next %d, want %d", sector, ok, got.First, want[i].First)
			}
		}
	}
}

// shape checks that pages are neither too long nor, on the whole, too short.
func shape(t *testing.T, p *Pages, root Root) {
	t.Helper()
	pages := uint64(0)
	err := p.WalkPages(t.Context(), root, 0, math.MaxUint64, func(Root) bool { pages++; return true }, func(pack.Ref) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if most := 3 + root.Packs/fewEntries; pages > most {
		t.Fatalf("%d pages for %d packs", pages, root.Packs)
	}
}

func TestDeepLevel(t *testing.T) {
	st := &counter{Store: mem.New()}
	p := NewPages(st, 2000)
	const n = maxEntries*maxEntries + 1000
	refs := spread(1000, n)
	root := must[Root](t)(p.Update(t.Context(), Root{}, 0, math.MaxUint64, refs))
	if root.Depth != 2 {
		t.Fatalf("depth %d", root.Depth)
	}
	model(refs).compare(t, p, root)

	// One pack more, anywhere: one page written for each depth, two where one was full.
	for _, first := range []uint64{0, 1100, 1000 + 200*n/2 + 100, 1000 + 200*n} {
		st.puts.Store(0)
		next := must[Root](t)(p.Update(t.Context(), root, first, first+50, []pack.Ref{ref(first, first+50)}))
		if next.Packs != n+1 || st.puts.Load() > 4 {
			t.Errorf("at %d: %d packs, %d pages written", first, next.Packs-n, st.puts.Load())
		}
	}

	// A cold look-up reads one page for each depth, and only once.
	cold := NewPages(st, 10)
	st.gets.Store(0)
	for range 5 {
		if _, ok, err := cold.Find(t.Context(), root, 1000+200*777); !ok || err != nil || st.gets.Load() != 3 {
			t.Fatalf("%v, %v, %d requests", ok, err, st.gets.Load())
		}
	}

	// Most of the disk is dropped: nothing of that is read, and the tree gets lower.
	cold = NewPages(st, 100)
	st.gets.Store(0)
	low := must[Root](t)(cold.Update(t.Context(), root, 1000+200*100, math.MaxUint64, nil))
	if low.Depth != 0 || low.Packs != 100 || st.gets.Load() > 8 {
		t.Errorf("%+v after %d requests", low, st.gets.Load())
	}
	model(refs[:100]).compare(t, cold, low)
	if none := must[Root](t)(cold.Update(t.Context(), low, 0, math.MaxUint64, nil)); none != (Root{}) {
		t.Errorf("an empty level: %+v", none)
	}
}

func TestWalkRange(t *testing.T) {
	p := NewPages(mem.New(), 10)
	refs := spread(0, 3000)
	root := must[Root](t)(p.Update(t.Context(), Root{}, 0, 600_000, refs))
	for _, c := range []struct{ from, to, lo, hi uint64 }{
		{0, 0, 0, 0}, {100, 200, 0, 0}, {99, 201, 0, 2}, {200 * 500, 200*520 + 1, 500, 521}, {200 * 2999, math.MaxUint64, 2999, 3000},
	} {
		var got []pack.Ref
		err := p.Walk(t.Context(), root, c.from, c.to, func(r pack.Ref) error { got = append(got, r); return nil })
		if err != nil || !slices.Equal(got, refs[c.lo:c.hi]) {
			t.Errorf("[%d, %d): %d packs, %v", c.from, c.to, len(got), err)
		}
	}
	stop := errors.New("stop")
	n := 0
	if err := p.Walk(t.Context(), root, 0, 1e9, func(pack.Ref) error { n++; return stop }); err != stop || n != 1 {
		t.Errorf("%v after %d", err, n)
	}
}

func TestUpdateRefusesNonsense(t *testing.T) {
	p := NewPages(mem.New(), 10)
	for name, add := range map[string][]pack.Ref{
		"outside":     {ref(5, 15)},
		"before":      {ref(15, 20), ref(5, 10)},
		"overlapping": {ref(10, 15), ref(14, 16)},
		"beyond":      {ref(15, 25)},
		"empty":       {ref(15, 15)},
	} {
		if _, err := p.Update(t.Context(), Root{}, 10, 20, add); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestDamagedPages(t *testing.T) {
	st := mem.New()
	root := must[Root](t)(NewPages(st, 10).Update(t.Context(), Root{}, 0, 1e6, spread(0, 600)))
	try := func() error {
		_, _, err := NewPages(st, 10).Find(t.Context(), root, 0)
		return err
	}
	var good []byte
	st.Tamper(root.Key(), func(b []byte) []byte { good = bytes.Clone(b); b[50] ^= 4; return b })
	if err := try(); !errors.Is(err, ErrDamaged) {
		t.Errorf("flipped bit: %v", err)
	}
	st.Tamper(root.Key(), func([]byte) []byte { return good })
	if err := try(); err != nil {
		t.Error(err)
	}
	lie := root
	lie.Packs++
	if _, _, err := NewPages(st, 10).Find(t.Context(), lie, 0); !errors.Is(err, ErrDamaged) {
		t.Errorf("wrong totals above: %v", err)
	}
	if err := st.Delete(t.Context(), root.Key()); err != nil {
		t.Fatal(err)
	}
	if err := try(); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
}

// held lets a test hold GETs back.
type held struct {
	*mem.Store
	gets atomic.Int64
	open chan struct{}
}

func (h *held) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	h.gets.Add(1)
	select {
	case <-h.open:
		return h.Store.Get(ctx, key, r)
	case <-ctx.Done():
		return nil, store.Info{}, ctx.Err()
	}
}

// Readers that want the same page share one request, and one that gives up does not take the others with it.
func TestReadersShareARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &held{Store: mem.New(), open: make(chan struct{})}
		root := must[Root](t)(NewPages(st, 10).Update(t.Context(), Root{}, 0, 1e6, spread(0, 10)))
		p := NewPages(st, 10)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		results := make(chan error, 10)
		find := func(ctx context.Context) {
			_, _, err := p.Find(ctx, root, 0)
			results <- err
		}
		go find(ctx) // this one asks the store
		synctest.Wait()
		for range 9 {
			go find(t.Context())
		}
		synctest.Wait()
		if st.gets.Load() != 1 {
			t.Fatalf("%d requests", st.gets.Load())
		}
		time.Sleep(2 * time.Second)
		if err := <-results; !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		synctest.Wait()
		if st.gets.Load() != 2 {
			t.Fatalf("%d requests", st.gets.Load())
		}
		close(st.open)
		for range 9 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
	})
}

func FuzzPage(f *testing.F) {
	leaf := &page{refs: spread(5, 3)}
	c := leaf.total()
	c.Page = [32]byte{1}
	f.Add(leaf.encode())
	f.Add((&page{depth: 1, children: []child{c}}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePage(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		again := p.encode()
		copy(again[pageHeadLen-16:], b[pageHeadLen-16:pageHeadLen]) // the random bytes
		if !bytes.Equal(again, b) {
			t.Fatal("it encodes to something else again")
		}
	})
}

func TestImpossiblePages(t *testing.T) {
	ok := func(first, end uint64) child { return child{Root{Page: [32]byte{1}, Packs: 1}, first, end} }
	for name, p := range map[string]*page{
		"empty":              {},
		"overlap":            {refs: []pack.Ref{ref(0, 10), ref(9, 12)}},
		"order":              {refs: []pack.Ref{ref(10, 20), ref(0, 5)}},
		"empty pack":         {refs: []pack.Ref{ref(5, 5)}},
		"too many":           {refs: spread(0, maxEntries+1)},
		"too deep":           {depth: maxDepth + 1, children: []child{ok(0, 1)}},
		"children overlap":   {depth: 1, children: []child{ok(0, 10), ok(9, 12)}},
		"children out order": {depth: 1, children: []child{ok(10, 12), ok(0, 9)}},
		"empty child":        {depth: 1, children: []child{ok(5, 5)}},
		"child of no packs":  {depth: 1, children: []child{{End: 1}}},
	} {
		if _, err := parsePage(p.encode()); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	body := (&page{refs: spread(0, 2)}).encode()
	for _, at := range []int{0, 13, 14} { // magic, zero, number of entries
		bad := bytes.Clone(body)
		bad[at]++
		if _, err := parsePage(bad); !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d: %v", at, err)
		}
	}
	body[8]++
	if _, err := parsePage(body); !errors.Is(err, ErrVersion) {
		t.Errorf("%v", err)
	}
}

// A level that is thinned out bit by bit does not keep a page for each of the few packs that are left.
func TestThinnedLevelGetsSmaller(t *testing.T) {
	p := NewPages(mem.New(), 200)
	refs := spread(0, 20*maxEntries)
	root := must[Root](t)(p.Update(t.Context(), Root{}, 0, math.MaxUint64, refs))
	var want model
	for i := 0; i < len(refs); i += 64 {
		want = append(want, refs[i])
		root = must[Root](t)(p.Update(t.Context(), root, refs[i].End, refs[i+63].End, nil))
	}
	want.compare(t, p, root)
	shape(t, p, root)
}
