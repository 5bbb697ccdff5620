package volume

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// The map against an array of values, sector by sector.
func TestExtmapModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 3000
		m := &extmap{unit: 8}
		var model [size]uint64 // 0 = unmapped
		ops := rapid.IntRange(1, 600).Draw(t, "ops")
		seg := uint64(1)
		for range ops {
			first := rapid.Uint64Range(0, size-1).Draw(t, "first")
			count := rapid.Uint64Range(1, min(size-first, rapid.SampledFrom([]uint64{1, 3, 40, size}).Draw(t, "most"))).Draw(t, "count")
			switch rapid.IntRange(0, 9).Draw(t, "op") {
			case 0:
				m.remove(first, first+count)
				for s := first; s < first+count; s++ {
					model[s] = 0
				}
			case 1:
				want := rapid.Uint64Range(1, seg).Draw(t, "seg")
				m.removeMatch(first, first+count, 32, want)
				for s := first; s < first+count; s++ {
					if model[s]>>32 == want {
						model[s] = 0
					}
				}
			case 2:
				val := seg<<32 | flagZero
				m.insert(first, count, val)
				for s := first; s < first+count; s++ {
					model[s] = val
				}
			default:
				seg += rapid.Uint64Range(0, 1).Draw(t, "newseg")
				val := seg<<32 | rapid.Uint64Range(0, 1000).Draw(t, "off")*8
				m.insert(first, count, val)
				for s := range count {
					model[first+s] = val + s*8
				}
			}
			if !m.sorted() {
				t.Fatal("directory out of order")
			}
		}
		at := uint64(0)
		_ = m.runs(0, size, func(r run) error {
			for ; at < r.first; at++ {
				if model[at] != 0 {
					t.Fatalf("sector %d: unmapped, want %x", at, model[at])
				}
			}
			for ; at < r.end(); at++ {
				if got := m.valueAt(r, at); got != model[at] {
					t.Fatalf("sector %d: %x, want %x", at, got, model[at])
				}
			}
			return nil
		})
		for ; at < size; at++ {
			if model[at] != 0 {
				t.Fatalf("sector %d: unmapped, want %x", at, model[at])
			}
		}
	})
}

// Random inserts and removals over many leaves: extents that reach over leaf borders are cut at both ends.
func TestExtmapLeafBorders(t *testing.T) {
	const size = 4096
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		m := extmap{unit: 1}
		var model [size]uint64
		for step := range 3000 {
			first := rng.Uint64N(size)
			n := 1 + rng.Uint64N(min(size-first, 1+rng.Uint64N(200)*rng.Uint64N(3)))
			val := uint64(step+1) << 32
			if rng.IntN(10) == 0 {
				m.remove(first, first+n)
				val = 0
			} else {
				m.insert(first, n, val)
			}
			for i := range n {
				model[first+i] = val
				if val != 0 {
					model[first+i] += i
				}
			}
			if !m.sorted() {
				t.Fatalf("seed %d step %d: [%d,+%d) broke the order", seed, step, first, n)
			}
		}
		for s := range uint64(size) {
			got := uint64(0)
			if r, ok := m.at(m.seek(s)); ok && r.first <= s {
				got = m.valueAt(r, s)
			}
			if got != model[s] {
				t.Fatalf("seed %d: sector %d is %x, want %x", seed, s, got, model[s])
			}
		}
	}
}

// Many small leaves: splits, joins and dropped leaves over a wide range.
func TestExtmapWide(t *testing.T) {
	m := &extmap{unit: 1}
	for i := range uint64(20000) {
		s := (i * 7919) % 20000
		m.insert(s*2, 1, 1<<32|s<<3)
	}
	if m.n != 20000 || !m.sorted() {
		t.Fatalf("%d extents, sorted %v", m.n, m.sorted())
	}
	if end := m.pieces(0, 40000, 100); end != 200 {
		t.Fatalf("100 pieces end at %d", end)
	}
	m.insert(100, 39000, 2<<32|flagZero)
	m.remove(0, 40000)
	if m.n != 0 || m.bytes() > 1<<20 {
		t.Fatalf("%d extents left, %d bytes", m.n, m.bytes())
	}
}

func BenchmarkExtmapInsert(b *testing.B) {
	m := &extmap{unit: 8}
	x := uint64(1)
	for b.Loop() {
		x = x*6364136223846793005 + 1442695040888963407
		m.insert(x>>46, 1, x>>32<<32|(x&0xfffff)<<3)
	}
	b.ReportMetric(float64(m.bytes())/float64(m.n), "B/extent")
}

func BenchmarkExtmapSeek(b *testing.B) {
	m := &extmap{unit: 8}
	for i := range uint64(1 << 18) {
		m.insert((i*0x9e3779b1)&(1<<18-1), 1, i<<32|i<<3)
	}
	x := uint64(1)
	for b.Loop() {
		x = x*6364136223846793005 + 1442695040888963407
		m.at(m.seek(x >> 46))
	}
}
