package e2e

import (
	"context"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// history is the writes and discards of one writer in order. The version of a stamp is the position of its write,
// counted from 1.
type history struct {
	sectors int
	mu      sync.Mutex
	ops     []op
}

type op struct {
	first, n int // sectors
	discard  bool
	acked    time.Time // zero when it failed
}

// run writes and discards at random until it meets an error, which it returns, or ctx ends.
func (h *history) run(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	p := aligned(maxRun * sector)
	for ctx.Err() == nil {
		n := 1 + rand.IntN(maxRun)
		o := op{first: rand.IntN(h.sectors - n), n: n, discard: rand.IntN(8) == 0}
		version := h.begin(o)
		if err := o.do(f, p, version); err != nil {
			return err
		}
		h.acknowledge(version)
	}
	return nil
}

func (o *op) do(f *os.File, p []byte, version int) error {
	off, n := int64(o.first)*sector, int64(o.n)*sector
	if o.discard {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	}
	for i := range o.n {
		stamp(p[i*sector:], o.first+i, uint64(version))
	}
	_, err := f.WriteAt(p[:n], off)
	return err
}

func (h *history) begin(o op) (version int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, o)
	return len(h.ops)
}

func (h *history) acknowledge(version int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops[version-1].acked = time.Now()
}

// before counts the operations that were acknowledged before an instant.
func (h *history) before(at time.Time) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := slices.IndexFunc(h.ops, func(o op) bool { return o.acked.IsZero() || !o.acked.Before(at) })
	if n < 0 {
		return len(h.ops)
	}
	return n
}

// prefix returns up to which operation, that one included, the disk goes. It fails the test when some sector is older
// or newer than that.
func (h *history) prefix(t testing.TB, disk []uint64) int {
	t.Helper()
	state, n := make([]uint64, h.sectors), 0
	step := func() {
		o := h.ops[n]
		n++
		for i := o.first; i < o.first+o.n; i++ {
			state[i] = uint64(n)
			if o.discard {
				state[i] = 0
			}
		}
	}
	for n < int(slices.Max(disk)) {
		step()
	}
	// A discard leaves no stamp: those that follow may or may not have been seen.
	for !slices.Equal(state, disk) {
		if n == len(h.ops) || !h.ops[n].discard {
			i := differ(state, disk)
			t.Fatalf("the disk is no prefix of the history: the newest write is %d of %d, and sector %d is of write %d instead of %d",
				slices.Max(disk), len(h.ops), i, disk[i], state[i])
		}
		step()
	}
	return n
}

func differ(a, b []uint64) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}
