package bench

import (
	"context"
	"math/rand/v2"
	"testing"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/dir"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/volume"
)

// TestUploadCost: what reaches the store for random 4 KiB writes over a disk eight times as large, whose data does not
// compress. Every request counts, those that make the disk included.
func TestUploadCost(t *testing.T) {
	n := choose[int64](64<<20, 1<<30)
	st := &counting{Store: forgetful{mem.New()}}
	writeRandom(t, st, volume.Tuning{NoCompaction: true}, n)
	put := float64(st.bytes.Load())
	report(row{What: "bytes PUT for random 4 KiB writes, no compaction", Unit: "MB", sides: sides{put / 1e6, float64(n) / 1e6, put / float64(n)},
		RefName: "bytes written", Must: 1.15, AtMost: true})
	requests := float64(st.requests.Load())
	report(row{What: "requests for them", Unit: "", sides: sides{requests, float64(n) / 1e6, requests}, RefName: "MB written", Must: 80, AtMost: true})
}

// TestCompactionCost is the same until compaction has nothing more to do. The packs are kept: it reads them.
func TestCompactionCost(t *testing.T) {
	n := choose[int64](64<<20, 1<<30)
	kept, err := dir.Open(t.TempDir(), false)
	must(t, err)
	st := &counting{Store: kept}
	tuning := volume.Tuning{}
	if !full() {
		tuning = volume.Tuning{BatchBytes: 2 << 20, TailPacks: 8}
	}
	writeRandom(t, st, tuning, n)
	st.idle()
	put := float64(st.bytes.Load())
	report(row{What: "bytes PUT for them, compaction settled", Unit: "MB", sides: sides{put / 1e6, float64(n) / 1e6, put / float64(n)},
		RefName: "bytes written", Must: 2.5, AtMost: true})
}

// writeRandom writes n bytes and returns when the barrier covers them.
func writeRandom(t testing.TB, st store.Store, tuning volume.Tuning, n int64) {
	t.Helper()
	v := openDisk(t, host(t, st, 2*n+(256<<20), tuning), "cost", 8*n)
	p, noise, place := make([]byte, 4096), rand.NewChaCha8([32]byte{9}), rand.New(rand.NewPCG(3, 4))
	for range n / 4096 {
		_, _ = noise.Read(p)
		must(t, v.WriteAt(context.Background(), p, place.Int64N(v.Size()/4096)*4096, false))
	}
	must(t, v.Sync(context.Background(), nil))
}
