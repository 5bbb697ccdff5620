package frontends

import "testing"

func TestSizes(t *testing.T) {
	for bytes, want := range map[int64]int{
		0: 0, 1: 0, 512: 0, 4096: 0, 4097: 1, 8192: 1, 8193: 2, 128 << 10: 5, 1 << 20: 8, 1<<20 + 1: 9, 2 << 30: 9,
	} {
		if got := bucket(bytes); got != want {
			t.Errorf("%d bytes go to bucket %d, want %d", bytes, got, want)
		}
	}
	if last := BucketLimit(SizeBuckets - 2); last != 1<<20 {
		t.Errorf("the last bucket but one ends at %d", last)
	}
	var a, b Sizes
	a.Count(OpRead, 4096)
	b.Count(OpRead, 5000)
	b.Count(OpWrite, 1<<20)
	var sum SizeCounts
	sum.Add(&a)
	sum.Add(&b)
	if r := sum[OpRead]; r.Count[0] != 1 || r.Count[1] != 1 || r.Bytes != 9096 {
		t.Errorf("reads: %+v", r)
	}
	if w := sum[OpWrite]; w.Count[8] != 1 || w.Bytes != 1<<20 {
		t.Errorf("writes: %+v", w)
	}
	if sum[OpClear] != (SizeCounts{})[OpClear] {
		t.Errorf("cleared: %+v", sum[OpClear])
	}
}
