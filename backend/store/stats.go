package store

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Op is a kind of request.
type Op uint8

const (
	OpGet Op = iota
	OpPut
	OpDelete
	OpList // one per page of 1,000 keys, as S3 bills it
	OpNow
	NumOps
)

func (o Op) String() string { return [...]string{"get", "put", "delete", "list", "now"}[o] }

// LatencyBuckets is the number of latency buckets: bucket i counts requests that took less than LatencyBound(i) and not
// less than the bound before; the last one has no bound.
const LatencyBuckets = 17

// LatencyBound is 1 ms, 2 ms, 4 ms, ... 32.768 s.
func LatencyBound(i int) time.Duration { return time.Millisecond << i }

// OpStats counts requests of one class and one operation since the start.
type OpStats struct {
	Requests uint64 // sent to the store, each attempt
	Errors   uint64 // of these, the ones that returned an error other than ErrNotFound and ErrPrecondition
	Up, Down uint64 // bytes of bodies
	Waited   time.Duration
	Busy     time.Duration // sum of all latencies
	Latency  [LatencyBuckets]uint64
}

// Stats is a snapshot of a Gateway. Its fields are read one by one, so sums may be off by requests in flight.
type Stats struct {
	Ops      [NumClasses][NumOps]OpStats
	InFlight [NumClasses]int
	Waiting  [NumClasses]int
}

// Requests is the number of requests sent so far, of all classes and operations.
func (s *Stats) Requests() (n uint64) {
	for c := range s.Ops {
		for op := range s.Ops[c] {
			n += s.Ops[c][op].Requests
		}
	}
	return n
}

// meter is the live form of OpStats.
type meter struct {
	requests, errors, up, down atomic.Uint64
	waited, busy               atomic.Int64
	latency                    [LatencyBuckets]atomic.Uint64
}

func (m *meter) record(waited, took time.Duration, up, down int, failed bool) {
	m.requests.Add(1)
	m.waited.Add(int64(waited))
	m.busy.Add(int64(took))
	m.up.Add(uint64(up))
	m.down.Add(uint64(down))
	if failed {
		m.errors.Add(1)
	}
	m.latency[latencyBucket(took)].Add(1)
}

func latencyBucket(d time.Duration) int {
	return min(bits.Len64(uint64(max(d, 0)/time.Millisecond)), LatencyBuckets-1)
}

func (m *meter) snapshot() OpStats {
	s := OpStats{
		Requests: m.requests.Load(),
		Errors:   m.errors.Load(),
		Up:       m.up.Load(),
		Down:     m.down.Load(),
		Waited:   time.Duration(m.waited.Load()),
		Busy:     time.Duration(m.busy.Load()),
	}
	for i := range m.latency {
		s.Latency[i] = m.latency[i].Load()
	}
	return s
}
