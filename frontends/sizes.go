package frontends

import (
	"math/bits"
	"sync/atomic"
)

// Op is a kind of request whose sizes are counted.
type Op int

const (
	OpRead Op = iota
	OpWrite
	OpClear // discards and writes of zeros
	NumOps
)

func (o Op) String() string { return [NumOps]string{"read", "write", "clear"}[o] }

// SizeBuckets is the number of buckets: the first one is for requests of up to 4 KiB, each next one for twice as much,
// the last one for all above 1 MiB.
const SizeBuckets = 10

const (
	firstBucket = 12 // log2
	lastBucket  = firstBucket + SizeBuckets - 2
)

// BucketLimit is the largest request of a bucket, bytes; the last one has none.
func BucketLimit(bucket int) int64 { return 1 << (firstBucket + bucket) }

// Sizes counts the requests of a disk by their size. Safe for concurrent use; cheapest when only one thread counts.
type Sizes [NumOps]struct {
	count [SizeBuckets]atomic.Uint64
	bytes atomic.Uint64
}

// Count adds a request.
func (s *Sizes) Count(op Op, bytes int64) {
	c := &s[op]
	c.count[bucket(bytes)].Add(1)
	c.bytes.Add(uint64(bytes))
}

func bucket(bytes int64) int {
	log2 := bits.Len64(uint64(max(0, bytes-1))) // rounded up
	return min(max(log2, firstBucket), lastBucket+1) - firstBucket
}

// SizeCounts is what a Sizes counted.
type SizeCounts [NumOps]struct {
	Count [SizeBuckets]uint64
	Bytes uint64
}

// Add the counts of s.
func (t *SizeCounts) Add(s *Sizes) {
	for op := range t {
		for b := range t[op].Count {
			t[op].Count[b] += s[op].count[b].Load()
		}
		t[op].Bytes += s[op].bytes.Load()
	}
}
