package volume

import (
	"context"
	"math/rand/v2"
	"testing"

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
