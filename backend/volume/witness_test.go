package volume

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"glidefs-appliance/frontends"
)

// testBudget is how long a random test goes on with new seeds: GLIDEFS_TEST_BUDGET, less with -short.
func testBudget(t testing.TB, most time.Duration) time.Duration {
	if s := os.Getenv("GLIDEFS_TEST_BUDGET"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatalf("GLIDEFS_TEST_BUDGET: %v", err)
		}
		return d
	}
	if testing.Short() {
		return most / 2
	}
	return most
}

// eachSeed calls fn with new seeds for about the budget, at least once; with GLIDEFS_TEST_SEED for that seed only.
func eachSeed(t *testing.T, most time.Duration, fn func(t *testing.T, seed uint64)) {
	run := func(seed uint64) (ok bool) {
		defer func() {
			if !ok { // fn may not have returned
				t.Logf("again with GLIDEFS_TEST_SEED=%d", seed)
			}
		}()
		fn(t, seed)
		return !t.Failed()
	}
	if s := os.Getenv("GLIDEFS_TEST_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("GLIDEFS_TEST_SEED: %v", err)
		}
		run(seed)
		return
	}
	first, n := rand.Uint64(), uint64(0)
	for began, budget := time.Now(), testBudget(t, most); ; n++ {
		if !run(first+n) || time.Since(began) > budget {
			break
		}
	}
	t.Logf("seeds %d to %d", first, first+n)
}

// witness remembers what every prefix of a disk's requests makes of it: states[m] is the disk after its first m requests,
// as a hash for each sector. Requests come from one goroutine, so that their order is the write order.
type witness struct {
	name   string
	sector int
	now    []byte
	states [][]uint64
	what   []string // request m
}

var stateSeed = maphash.MakeSeed()

// newWitness of a disk with that content.
func newWitness(name string, sector int, content []byte) *witness {
	w := &witness{name: name, sector: sector, now: content}
	w.note("as found")
	return w
}

func hashes(p []byte, sector int) []uint64 {
	h := make([]uint64, len(p)/sector)
	for i := range h {
		h[i] = maphash.Bytes(stateSeed, p[i*sector:(i+1)*sector])
	}
	return h
}

func (w *witness) note(what string) {
	w.states, w.what = append(w.states, hashes(w.now, w.sector)), append(w.what, what)
}

// last is the number of requests begun.
func (w *witness) last() int { return len(w.states) - 1 }

// match finds the prefix of at least lo and at most hi requests that got is the result of. The request after it may be
// there in part, from its beginning in address order, unless whole; zeroes are always in parts (edges and middle).
func (w *witness) match(got []byte, lo, hi int, whole bool) (int, error) {
	h := hashes(got, w.sector)
	for m := hi; m >= lo; m-- {
		i := differs(h, w.states[m])
		if i < 0 {
			return m, nil
		}
		if m == hi || whole && !strings.HasPrefix(w.what[m+1], "zeroes") {
			continue
		}
		// up to some sector as after request m+1, from there on as before it
		if next := w.states[m+1]; slices.Equal(h[:i], w.states[m][:i]) && partly(h, w.states[m], next) {
			return m, nil
		}
	}
	return 0, fmt.Errorf("disk %s is no prefix of its requests between %d and %d:%s", w.name, lo, hi, w.explain(h, lo, hi))
}

func differs(a, b []uint64) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

func partly(h, old, next []uint64) bool {
	end := len(h)
	for end > 0 && h[end-1] == old[end-1] {
		end--
	}
	return slices.Equal(h[:end], next[:end])
}

// explain names the sectors that spoil the best guess, and which requests left them so.
func (w *witness) explain(h []uint64, lo, hi int) (s string) {
	best, wrong := lo, len(h)+1
	for m := lo; m <= hi; m++ {
		n := 0
		for i := range h {
			if h[i] != w.states[m][i] {
				n++
			}
		}
		if n <= wrong {
			best, wrong = m, n
		}
	}
	s = fmt.Sprintf(" nearest is %d (%s), of %d sectors %d differ", best, w.what[best], len(h), wrong)
	shown := 0
	for i := range h {
		if h[i] == w.states[best][i] {
			continue
		}
		if shown++; shown > 12 {
			return s + " ..."
		}
		s += fmt.Sprintf("\n\tsector %d is ", i)
		as := -1
		for m := range w.states {
			if w.states[m][i] == h[i] && (m == 0 || w.states[m-1][i] != h[i]) {
				as = m
				s += fmt.Sprintf("as after %d (%s); ", m, w.what[m])
			}
		}
		if as < 0 {
			s += "foreign"
		}
	}
	return s
}

// disk is a volume and its witness.
type disk struct {
	*witness
	v *Volume
}

// stamp fills p, bytes [off, off+len(p)) of the disk, with what only this request of this disk writes there.
func (d *disk) stamp(p []byte, off int64, rng *rand.Rand) {
	id := uint64(d.name[0])<<56 | uint64(len(d.states))<<40 | uint64(rng.Uint32())
	random := rng.IntN(2) == 0
	for i := range p {
		x := id + uint64(off+int64(i))/8<<8
		if random {
			x *= 0x9e3779b97f4a7c15
		}
		var cell [8]byte
		binary.LittleEndian.PutUint64(cell[:], x)
		p[i] = cell[(off+int64(i))%8]
	}
}

// span is a random range of bytes, mostly whole sectors.
func (d *disk) span(rng *rand.Rand) (off, n int64) {
	size, sector := int64(len(d.now)), int64(d.sector)
	most := []int64{1, sector, 3 * sector, 5000, 60_000, size / 2}[rng.IntN(6)]
	off = rng.Int64N(size)
	n = 1 + rng.Int64N(most)
	if rng.IntN(4) > 0 {
		off, n = off/sector*sector, (n+sector-1)/sector*sector
	}
	return off, min(n, size-off)
}

// request does one random request; durable tells of a FUA write. begun is called before it reaches the volume.
func (d *disk) request(rng *rand.Rand, begun func()) (durable bool, err error) {
	off, n := d.span(rng)
	return d.requestAt(rng, off, n, begun)
}

func (d *disk) requestAt(rng *rand.Rand, off, n int64, begun func()) (durable bool, err error) {
	ctx := context.Background()
	switch k := rng.IntN(10); {
	case k < 8:
		fua := rng.IntN(6) == 0
		p := make([]byte, n)
		d.stamp(p, off, rng)
		copy(d.now[off:], p)
		d.note(fmt.Sprintf("write %d+%d fua=%v", off, n, fua))
		begun()
		if d.v.placeable(off, n) == nil && rng.IntN(3) == 0 {
			return fua, d.place(ctx, p, off, fua)
		}
		return fua, d.v.WriteAt(ctx, p, off, fua)
	case k < 9:
		clear(d.now[off : off+n])
		d.note(fmt.Sprintf("zeroes %d+%d", off, n))
		begun()
		return false, d.v.WriteZeroes(ctx, off, n)
	default:
		sector := int64(d.sector)
		if lo, hi := (off+sector-1)/sector*sector, (off+n)/sector*sector; lo < hi {
			clear(d.now[lo:hi])
		}
		d.note(fmt.Sprintf("discard %d+%d", off, n))
		begun()
		return false, d.v.Discard(ctx, off, n)
	}
}

// place writes as a frontend does that moves the bytes itself and does not see them: no record says what they are.
func (d *disk) place(ctx context.Context, p []byte, off int64, fua bool) error {
	var place frontends.Placement
	if err := d.v.Reserve(ctx, off, int64(len(p)), &place); err != nil {
		return err
	}
	for _, s := range place.Own.(*op).spans {
		if err := s.Seg.WriteAt(p[:s.Len], s.Off); err != nil {
			d.v.Abandon(&place)
			return err
		}
		p = p[s.Len:]
	}
	err := d.v.Commit([]frontends.Write{{Off: off, Place: &place}})
	if err == nil && fua {
		err = d.v.Flush(ctx)
	}
	return err
}

// content reads the whole disk.
func (d *disk) content() ([]byte, error) {
	p := make([]byte, d.v.Size())
	return p, d.v.ReadAt(context.Background(), p, 0)
}
