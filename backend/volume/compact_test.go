package volume

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
	"glidefs-appliance/backend/vfs"
)

// Compaction comes to an end, and within a few rewrites of what was written: of data that compresses a hundred times,
// whose packs are small however much is in them, too.
func TestCompactionEnds(t *testing.T) {
	for name, fill := range map[string]func(p []byte, rng *rand.Rand){
		"compressible": func(p []byte, rng *rand.Rand) { fillStripes(p, 64, byte(rng.Uint32())) },
		"random":       func(p []byte, rng *rand.Rand) { fillRandom(p, rng) },
		"sparse":       func(p []byte, rng *rand.Rand) { fillRandom(p[:4096], rng) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(vfs.NewCrash(), "/state")
			r.tuning.NoCompaction = true
			v := r.open(t, "a", OpenOptions{Create: 8 << 20})
			defer func() { r.kill(v, false) }()
			rng, p := rand.New(rand.NewPCG(1, 1)), make([]byte, 64<<10)
			for off := int64(0); off < v.Size(); off += int64(len(p)) {
				fill(p, rng)
				if err := v.WriteAt(t.Context(), p, off, false); err != nil {
					t.Fatal(err)
				}
			}
			mustSync(t, v)
			batches := r.h.Counters().Batches
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r.h.Merged = func() {
				if r.h.Counters().Merges == batches {
					cancel()
				}
			}
			if err := v.compact(ctx); err != nil || ctx.Err() != nil {
				t.Errorf("after %d merges of %d batches: %v, %v", r.h.Counters().Merges, batches, err, ctx.Err())
			}
		})
	}
}

func fillRandom(p []byte, rng *rand.Rand) {
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
}

func fillStripes(p []byte, n int, c byte) {
	for i := range p {
		p[i] = c + byte(i/n)
	}
}

// TestCompactionSteps takes the steps of compaction one at a time; after each, a host that has nothing but the store reads
// what was written.
func TestCompactionSteps(t *testing.T) {
	eachSeed(t, 4*time.Second, func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 6))
		r := newRig(vfs.NewCrash(), "/state")
		r.tuning.NoCompaction, r.tuning.InlineBytes = true, []int64{1, 2 << 10}[rng.IntN(2)]
		r.tuning.TailPacks, r.tuning.LevelBytes = []int{3, 20}[rng.IntN(2)], 16<<10
		d := &disk{witness: newWitness("a", 512, make([]byte, 64<<10))}
		d.v = r.open(t, "a", OpenOptions{Create: int64(len(d.now)), Sector: 512})
		defer func() { r.kill(d.v, false) }()
		for range 60 {
			if _, err := d.small(rng); err != nil {
				t.Fatal(err)
			}
			mustSync(t, d.v)
			step := d.v.nextStep()
			if step == nil || rng.IntN(4) == 0 {
				continue
			}
			if err := step(t.Context()); err != nil {
				t.Fatal(err)
			}
			cold := newRig(vfs.NewCrash(), "/cold")
			cold.st = r.st
			v := cold.open(t, "a", OpenOptions{ReadOnly: true})
			got, err := (&disk{v: v}).content()
			if err == nil {
				_, err = d.match(got, d.last(), d.last(), true)
			}
			if err != nil {
				t.Fatal(err)
			}
			cold.close(t, v)
		}
	})
}

// small does a request of a few sectors, now and then of many.
func (d *disk) small(rng *rand.Rand) (bool, error) {
	off, n := d.span(rng)
	if rng.IntN(5) > 0 {
		off, n = rng.Int64N(120)*512, 512*(1+rng.Int64N(8))
	}
	return d.requestAt(rng, off, n, func() {})
}

// A batch takes the inline packs along that it found at the tail's head; while its pack is under way a merge of waste takes
// them too. The batch must not go over what it was not built for.
func TestMergeTakesWhatABatchTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(vfs.NewCrash(), "/state")
		f := storetest.NewFault(mem.New())
		r.st, r.tuning.NoCompaction = f, true
		d := &disk{witness: newWitness("a", 512, make([]byte, 256<<10))}
		d.v = r.open(t, "a", OpenOptions{Create: int64(len(d.now)), Sector: 512})
		defer func() { r.kill(d.v, false) }()
		rng := rand.New(rand.NewPCG(8, 8))
		write := func(off, n int64) {
			fillRandom(d.now[off:off+n], rng)
			if err := d.v.WriteAt(t.Context(), d.now[off:off+n], off, false); err != nil {
				t.Fatal(err)
			}
		}
		write(0, 128<<10)
		mustSync(t, d.v)
		for i := range int64(8) {
			write(i*8192, 512)
			mustSync(t, d.v)
		}
		clear(d.now[16<<10 : 256<<10])
		if err := d.v.Discard(t.Context(), 16<<10, 240<<10); err != nil {
			t.Fatal(err)
		}
		mustSync(t, d.v)
		write(64<<10, 16<<10)
		gate := f.Gate(func(q storetest.Request) bool { return q.Op == store.OpPut && q.Class == store.Upload })
		synced := make(chan error)
		go func() { synced <- d.v.Sync(t.Context(), nil) }()
		held := <-gate.C
		if n := leadingInlines(d.v.currentView().tail); n != 9 {
			t.Fatalf("%d inline packs", n)
		}
		d.v.compactNow(t)
		if n := len(d.v.currentView().tail); n != 0 {
			t.Fatalf("the merge left %d packs in the tail", n)
		}
		held.Release()
		gate.Open()
		if err := <-synced; err != nil {
			t.Fatal(err)
		}
		elsewhere(t, r, d)
	})
}
