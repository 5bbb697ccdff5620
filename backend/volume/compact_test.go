package volume

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

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
