package volume

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// TestFullLogUploads: with a log of two segments and an upload that is due in an hour, writers of any length and
// alignment wait for room again and again, and each gets it: whoever waits makes the upload due, for what is committed
// later as well.
func TestFullLogUploads(t *testing.T) {
	r := newDiskRig(t)
	r.log = 0
	v := r.open(t, "d", OpenOptions{Create: 1 << 20})
	defer r.kill(v, false)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			p := make([]byte, 64<<10)
			for range 100 {
				n := 1 + rng.IntN(len(p))
				off := rng.Int64N(v.Size() - int64(n))
				if rng.IntN(2) == 0 {
					n, off = (n+4095)&^4095, off&^4095
				}
				if err := v.WriteAt(ctx, p[:n], off, false); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if h := v.host.Tuning.UploadAge; h < time.Hour {
		t.Errorf("uploads are due after %s", h)
	}
}

// TestNextSegmentIsNoPressure: requests that wait for the log to make its next segment don't hurry an upload.
func TestNextSegmentIsNoPressure(t *testing.T) {
	r := newDiskRig(t)
	r.log, r.tuning.BatchBytes = 64<<20, 64<<20
	v := r.open(t, "d", OpenOptions{Create: 16 << 20})
	defer r.kill(v, false)
	p := make([]byte, 32<<10)
	for off := int64(0); off < v.Size(); off += int64(len(p)) {
		if err := v.WriteAt(context.Background(), p, off, false); err != nil {
			t.Fatal(err)
		}
	}
	v.stop()
	if s := v.Status(); s.BarrierSeq != 0 {
		t.Errorf("the store has the first %d records; nothing was due", s.BarrierSeq)
	}
}
