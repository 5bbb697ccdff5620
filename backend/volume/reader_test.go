package volume

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
	"glidefs-appliance/backend/vfs"
	"glidefs-appliance/frontends"
)

// follow reads what a plan points to, as a frontend does.
func follow(plan *frontends.Plan) ([]byte, error) {
	var out []byte
	for _, e := range plan.Extents {
		p := make([]byte, e.Len)
		if e.FD >= 0 {
			if n, err := unix.Pread(e.FD, p, e.Off); err != nil || n != len(p) {
				return nil, fmt.Errorf("pread of %d bytes at %d: %d, %w", e.Len, e.Off, n, err)
			}
		}
		out = append(out, p...)
	}
	return out, nil
}

// heldPlan is a reader that was preempted between its look-up and its copy.
type heldPlan struct {
	plan frontends.Plan
	want []byte
}

func (h *heldPlan) check(t *testing.T) {
	t.Helper()
	got, err := follow(&h.plan)
	if err != nil || !bytes.Equal(got, h.want) {
		t.Fatalf("a plan of %d bytes leads to %d others: %v", len(h.want), len(got), err)
	}
	h.plan.Release()
}

// TestMapRead: what MapRead points to is what ReadAt gives, however the data is spread over segments, clean frames and
// zeros; and it stays that as long as the plan is held, while the disk is overwritten, uploaded, evicted and recycled.
func TestMapRead(t *testing.T) {
	eachSeed(t, 3*time.Second, func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 3))
		r := newDiskRig(t)
		r.log, r.cache = 12*64<<10, 256<<10
		r.tuning.BatchBytes = 32 << 10
		d := &disk{witness: newWitness("a", 512<<(3*rng.IntN(2)), make([]byte, 256<<10))}
		d.v = r.open(t, "a", OpenOptions{Create: int64(len(d.now)), Sector: d.sector})
		defer func() { r.kill(d.v, false) }()
		var held []*heldPlan
		mapped := 0
		for range 300 {
			switch k := rng.IntN(10); {
			case k < 4:
				if _, err := d.request(rng, func() {}); err != nil {
					t.Fatal(err)
				}
			case k < 5:
				mustSync(t, d.v)
			case k < 6 && len(held) > 0:
				held[0].check(t)
				held = held[1:]
			default:
				off, n := d.span(rng)
				n = min(n, 16<<10) // a plan pins its segments: two of these leave room for writers
				readRight(t, d)
				h := &heldPlan{want: bytes.Clone(d.now[off : off+n])}
				if !d.v.MapRead(off, n, &h.plan) {
					if len(h.plan.Extents)+len(h.plan.Refs) > 0 {
						t.Fatal("a plan that is none is not empty")
					}
					continue
				}
				mapped++
				if held = append(held, h); len(held) > 2 {
					held[0].check(t)
					held = held[1:]
				}
			}
		}
		for _, h := range held {
			h.check(t)
		}
		if mapped < 20 {
			t.Errorf("only %d plans", mapped)
		}
	})
}

// versions is a disk whose every sector carries its number and a version that only grows.
type versions struct {
	v           *Volume
	sector      int64
	done, begun []atomic.Uint64
}

func (s *versions) fill(p []byte, first int64, version uint64) {
	for i := 0; i < len(p); i += 16 {
		binary.LittleEndian.PutUint64(p[i:], uint64(first+int64(i)/s.sector))
		binary.LittleEndian.PutUint64(p[i+8:], version)
	}
}

// write overwrites a run of sectors with their next version, which is the same for all in the run.
func (s *versions) write(rng *rand.Rand, lo, hi int64, version uint64) error {
	first := lo + rng.Int64N(hi-lo)
	end := min(hi, first+1+rng.Int64N(8))
	for i := first; i < end; i++ {
		s.begun[i].Store(version)
	}
	p := make([]byte, (end-first)*s.sector)
	s.fill(p, first, version)
	err := s.v.WriteAt(context.Background(), p, first*s.sector, false)
	for i := first; i < end; i++ {
		s.done[i].Store(version)
	}
	return err
}

// read reads a run of sectors, with a copy or along a plan, and checks each: whole, of its own place, and of a version
// between what had been written before and what was being written after.
func (s *versions) read(rng *rand.Rand) error {
	n := int64(len(s.done))
	first := rng.Int64N(n)
	end := min(n, first+1+rng.Int64N(24))
	before := make([]uint64, end-first)
	for i := range before {
		before[i] = s.done[first+int64(i)].Load()
	}
	p := make([]byte, (end-first)*s.sector)
	var plan frontends.Plan
	var err error
	if rng.IntN(2) == 0 && s.v.MapRead(first*s.sector, int64(len(p)), &plan) {
		p, err = follow(&plan)
		plan.Release()
	} else {
		err = s.v.ReadAt(context.Background(), p, first*s.sector)
	}
	for i := 0; err == nil && i < len(p); i += 16 {
		at := int64(i) / s.sector
		place, version := binary.LittleEndian.Uint64(p[i:]), binary.LittleEndian.Uint64(p[i+8:])
		if least, most := before[at], s.begun[first+at].Load(); version < least || version > most || version > 0 && place != uint64(first+at) {
			return fmt.Errorf("sector %d is that of %d in version %d, must be %d to %d", first+at, place, version, least, most)
		}
	}
	return err
}

// TestPreemptedReaders: readers that are held up at any point, in the store too, while all they look at is overwritten,
// uploaded, evicted, recycled and merged.
func TestPreemptedReaders(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			eachSeed(t, 3*time.Second, func(t *testing.T, seed uint64) { testReaders(t, sector, seed) })
		})
	}
}

func testReaders(t *testing.T, sector int, seed uint64) {
	r := newDiskRig(t)
	f := storetest.NewFault(mem.New())
	f.Always(storetest.On(store.OpGet, "packs/"), storetest.Slow(100*time.Microsecond))
	r.st, r.log, r.cache = f, 5*64<<10, 64<<10
	r.tuning.BatchBytes, r.tuning.TailPacks, r.tuning.LevelBytes = 32<<10, 2, 64<<10
	const sectors = 96
	s := &versions{sector: int64(sector), done: make([]atomic.Uint64, sectors), begun: make([]atomic.Uint64, sectors)}
	s.v = r.open(t, "a", OpenOptions{Create: sectors * int64(sector), Sector: sector})
	defer func() { r.kill(s.v, false) }()
	var writers, readers sync.WaitGroup
	var ended atomic.Bool
	for i := range int64(2) {
		writers.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			for version := range uint64(300) {
				if err := s.write(rng, i*sectors/2, (i+1)*sectors/2, version+1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range uint64(4) {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 100+i))
			for !ended.Load() {
				if err := s.read(rng); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	ended.Store(true)
	readers.Wait()
}

// An odd write is held up while it reads its edges; meanwhile the sector is overwritten, uploaded, and gone from the log
// again, so that a look at the log alone shows no difference.
func TestPreemptedOddWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(vfs.NewCrash(), "/state")
		f := storetest.NewFault(mem.New())
		r.st, r.cache = f, 0
		v := r.open(t, "a", OpenOptions{Create: 4 << 20})
		defer func() { r.kill(v, false) }()
		evict := func() { // by filling the log with something else
			if err := v.WriteAt(t.Context(), make([]byte, 2<<20), 2<<20, false); err != nil {
				t.Fatal(err)
			}
			mustSync(t, v)
		}
		if err := v.WriteAt(t.Context(), bytes.Repeat([]byte{'1'}, 4096), 0, false); err != nil {
			t.Fatal(err)
		}
		evict()
		gate := f.Gate(func(q storetest.Request) bool { return q.Op == store.OpGet && q.Class == store.Guest })
		done := make(chan error)
		go func() { done <- v.WriteAt(t.Context(), []byte("odd"), 100, false) }()
		(<-gate.C).Release() // that one only fetches
		held := <-gate.C
		if err := v.WriteAt(t.Context(), make([]byte, 64<<10), 1<<20, false); err != nil { // out of the segment it has a place in
			t.Fatal(err)
		}
		if err := v.WriteAt(t.Context(), bytes.Repeat([]byte{'2'}, 4096), 0, false); err != nil {
			t.Fatal(err)
		}
		evict()
		held.Release()
		gate.Open()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want, got := bytes.Repeat([]byte{'2'}, 4096), make([]byte, 4096)
		copy(want[100:], "odd")
		if err := v.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the sector is %q.., %v", got[98:105], err)
		}
	})
}

// An odd write waits for another one that reads its edges from a slow store. Its wait ends with its context, and with the disk.
func TestOddWriterBehindAnother(t *testing.T) {
	r := newRig(vfs.NewCrash(), "/state")
	f := storetest.NewFault(mem.New())
	r.st, r.cache, r.tuning.InlineBytes = f, 0, 1
	v := r.open(t, "a", OpenOptions{Create: 4 << 20})
	if err := v.WriteAt(t.Context(), bytes.Repeat([]byte{'1'}, 64<<10), 0, false); err != nil {
		t.Fatal(err)
	}
	mustSync(t, v)
	r.close(t, v)
	v = r.open(t, "a", OpenOptions{})
	gate := f.Gate(func(q storetest.Request) bool { return q.Op == store.OpGet && q.Class == store.Guest })
	odd := func(ctx context.Context, off int64) <-chan error {
		done := make(chan error, 1)
		go func() { done <- v.WriteAt(ctx, []byte("odd"), off, false) }()
		return done
	}
	first := odd(t.Context(), 100)
	<-gate.C
	ctx, cancel := context.WithCancel(t.Context())
	second, third := odd(ctx, 2<<20+100), odd(t.Context(), 3<<20+100)
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	r.kill(v, false)
	for _, done := range []<-chan error{first, third} {
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("after the end of the disk: %v", err)
		}
	}
	gate.Open()
}
