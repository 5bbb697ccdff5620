package wlog

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestTouched: what was touched is known to the block, and nothing else is.
func TestTouched(t *testing.T) {
	const blocks = 200
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		s, want := Segment{reads: newReads(blocks * blockSize)}, [blocks]bool{}
		for range 3 {
			off := rng.Int64N(blocks * blockSize)
			n := 1 + rng.Int64N(blocks*blockSize-off)
			s.Touch(off, n)
			for b := off / blockSize; b <= (off+n-1)/blockSize; b++ {
				want[b] = true
			}
		}
		for b := range want {
			if got := s.Touched(int64(b)*blockSize+1, 1); got != want[b] {
				t.Fatalf("block %d: %t, want %t", b, got, want[b])
			}
		}
		if first := rng.IntN(blocks); s.Touched(int64(first)*blockSize, int64(blocks-first)*blockSize) != slices.Contains(want[first:], true) {
			t.Fatalf("blocks from %d on: want %v", first, want[first:])
		}
	}
}
