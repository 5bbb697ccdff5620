package cache

import (
	"math/rand/v2"
	"testing"

	"glidefs-appliance/backend/vfs"
)

// A power cut at every write, through several rounds of eviction: what is found afterwards is what was put. Once more
// after a second cut, because the next process goes on filling the segments of the first.
func TestPowerCut(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	disk := vfs.NewCrash()
	workload(t, disk, rng, 120)
	kept := 0
	for k := range disk.Ops() + 1 {
		once := disk.CutAt(k, rng)
		kept += workload(t, once, rng, 5)
		if k%3 == 0 {
			workload(t, once.CutAt(rng.IntN(once.Ops()+1), rng), rng, 2)
			workload(t, once.Kill(), rng, 0)
		}
	}
	t.Logf("%d points, %d frames found", disk.Ops(), kept)
	if kept < disk.Ops() {
		t.Errorf("only %d frames survived %d cuts", kept, disk.Ops())
	}
}

// workload opens the cache, looks at everything that may be there, then puts and reads. It tells how many frames it
// found at the start.
func workload(t *testing.T, disk *vfs.Crash, rng *rand.Rand, puts int) (found int) {
	const keys = 60
	o := Options{FS: disk, Dir: "cache", Size: 5 * 24 << 10, SegmentSize: 24 << 10}
	c, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range keys {
		if has(t, c, i) {
			found++
		}
	}
	for range puts {
		i := rng.IntN(keys)
		c.Put(key(i), content(key(i), 1+rng.IntN(6<<10)))
		has(t, c, rng.IntN(keys))
	}
	return found
}
