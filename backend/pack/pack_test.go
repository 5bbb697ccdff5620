package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"testing"
)

// disk is what a test expects a pack to hold: nil for zeros.
type disk map[uint64][]byte

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b
}

// text compresses to about a quarter.
func text(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = "etaoin shrdlu"[r.IntN(4)+r.IntN(10)]
	}
	return b
}

// read looks every sector of the pack up as a reader does, starting from the reference and the object only.
func read(t *testing.T, r Ref, body []byte) disk {
	t.Helper()
	off, n := r.IndexRange()
	ix, err := DecodeIndex(r, body[off:off+n])
	if err != nil {
		t.Fatal(err)
	}
	got := disk{}
	for _, e := range ix.Extents {
		if e.Frame == ZeroFrame {
			for s := e.First; s < e.End(); s++ {
				got[s] = nil
			}
			continue
		}
		f := ix.Frames[e.Frame]
		raw, err := ix.DecodeFrame(e.Frame, body[f.Off:f.Off+f.Len], nil)
		if err != nil {
			t.Fatal(err)
		}
		size := uint64(ix.SectorSize)
		for i := range e.Count {
			got[e.First+i] = raw[uint64(e.Off)+i*size:][:size]
		}
	}
	return got
}

func compare(t *testing.T, got, want disk) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d sectors, want %d", len(got), len(want))
	}
	for s, w := range want {
		if g, ok := got[s]; !ok || !bytes.Equal(g, w) {
			t.Fatalf("sector %d differs (there: %v)", s, ok)
		}
	}
}

// fill adds random runs to b and returns what the pack must hold.
func fill(r *rand.Rand, b *Builder, runs int) disk {
	want, size, at := disk{}, int(b.sector), uint64(0)
	for range runs {
		if r.IntN(3) > 0 {
			at += r.Uint64N(1000)
		}
		n := 1 + r.IntN(4)
		if r.IntN(4) == 0 {
			n = 1 + r.IntN(600)
		}
		switch r.IntN(4) {
		case 0:
			b.AddZero(at, uint64(n))
			for i := range n {
				want[at+uint64(i)] = nil
			}
		default:
			data := noise(r, n*size)
			if r.IntN(2) == 0 {
				data = text(r, n*size)
			}
			for i := range n {
				sector := data[i*size:][:size]
				want[at+uint64(i)] = bytes.Clone(sector)
				if r.IntN(10) == 0 {
					clear(sector)
					want[at+uint64(i)] = nil
				}
			}
			b.Add(at, data)
			clear(data) // it was copied
		}
		at += uint64(n)
	}
	return want
}

func TestRoundTrip(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		for _, slots := range []chan struct{}{nil, make(chan struct{}, 3)} {
			b := NewBuilder(sector, slots)
			for seed := range uint64(15) {
				r := rand.New(rand.NewPCG(seed, uint64(sector)))
				b.Reset()
				want := fill(r, b, 1+r.IntN(40))
				bound := b.Size()
				p, err := b.Finish()
				if err != nil {
					t.Fatal(err)
				}
				if len(p.Body) > bound || int(p.Ref.Size) != len(p.Body) {
					t.Fatalf("%d bytes, Size said %d, the reference says %d", len(p.Body), bound, p.Ref.Size)
				}
				compare(t, read(t, p.Ref, p.Body), want)
				checkShape(t, p.Index)
			}
		}
	}
}

// checkShape holds the rules that readers and the upload figures rely on.
func checkShape(t *testing.T, ix *Index) {
	t.Helper()
	held := make([]int, len(ix.Frames))
	for i, e := range ix.Extents {
		if i > 0 {
			before := ix.Extents[i-1]
			if e.First == before.End() && e.Frame == ZeroFrame && before.Frame == ZeroFrame {
				t.Fatalf("extents %d and %d are one run of zeros", i-1, i)
			}
		}
		if e.Frame == ZeroFrame {
			continue
		}
		held[e.Frame]++
		per := MaxFrame / uint64(ix.SectorSize)
		if e.First/per != (e.End()-1)/per {
			t.Fatalf("extent %+v crosses a multiple of MaxFrame", e)
		}
	}
	for i, f := range ix.Frames {
		if f.Raw > MaxFrame || held[i] > 1 && f.Raw > MaxScattered {
			t.Fatalf("frame %d holds %d extents, %d bytes", i, held[i], f.Raw)
		}
	}
}

func TestFind(t *testing.T) {
	ix := &Index{Extents: []Extent{{First: 10, Count: 5}, {First: 20, Count: 1}}}
	for _, c := range []struct {
		sector uint64
		want   int
	}{{0, 0}, {10, 0}, {14, 0}, {15, 1}, {20, 1}, {21, 2}} {
		if got := ix.Find(c.sector); got != c.want {
			t.Errorf("Find(%d) = %d, want %d", c.sector, got, c.want)
		}
	}
}

func TestMisuse(t *testing.T) {
	sector := make([]byte, 4096)
	sector[0] = 1
	for name, use := range map[string]func(b *Builder){
		"nothing":    func(b *Builder) {},
		"no sectors": func(b *Builder) { b.AddZero(7, 0); b.Add(7, nil) },
		"part":       func(b *Builder) { b.Add(0, sector[:512]) },
		"twice":      func(b *Builder) { b.Add(5, sector); b.Add(5, sector) },
		"back":       func(b *Builder) { b.AddZero(5, 10); b.Add(14, sector) },
		"beyond":     func(b *Builder) { b.AddZero(maxEnd, 1) },
		"overflow":   func(b *Builder) { b.AddZero(1, 1<<63) },
		"then right": func(b *Builder) { b.Add(5, sector); b.Add(4, sector); b.Add(6, sector) },
	} {
		b := NewBuilder(4096, nil)
		use(b)
		if p, err := b.Finish(); err == nil {
			t.Errorf("%s: no error, %+v", name, p.Ref)
		}
		b.Reset()
		b.Add(1, sector)
		if _, err := b.Finish(); err != nil {
			t.Errorf("%s: after Reset: %v", name, err)
		}
	}
}

func TestZeroExtentsHaveNoData(t *testing.T) {
	b := NewBuilder(512, nil)
	b.Add(0, make([]byte, 1<<20))
	b.AddZero(2048, 1<<40)
	p, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	want := []Extent{{First: 0, Count: 2048 + 1<<40, Frame: ZeroFrame}}
	if !slices.Equal(p.Index.Extents, want) || len(p.Index.Frames) != 0 || p.Ref.Sectors != 0 {
		t.Fatalf("%+v, %d frames, %d sectors with data", p.Index.Extents, len(p.Index.Frames), p.Ref.Sectors)
	}
}

func TestNamesAreNeverRepeated(t *testing.T) {
	b := NewBuilder(4096, nil)
	b.AddZero(0, 1)
	var hashes []Hash
	for range 2 {
		p, err := b.Finish()
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, p.Ref.Hash)
	}
	if hashes[0] == hashes[1] {
		t.Fatal("the same batch gave the same name twice")
	}
	h, err := ParseHash(hashes[0].String())
	if err != nil || h != hashes[0] {
		t.Fatalf("%v, %v", h, err)
	}
	for _, s := range []string{"", hashes[0].String() + "00", "zz" + hashes[0].String()[2:]} {
		if _, err := ParseHash(s); err == nil {
			t.Errorf("%q parsed", s)
		}
	}
	if want := "packs/" + h.String()[:2] + "/" + h.String(); h.Key() != want {
		t.Errorf("key %s", h.Key())
	}
}

// A flipped bit anywhere is found: by the hash, and below it by each sum that a ranged reader has.
func TestBitFlips(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	b := NewBuilder(4096, nil)
	fill(r, b, 12)
	p, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	off, n := p.Ref.IndexRange()
	for at := range p.Body {
		if at > 64 && at < int(off) && at%4999 != 0 {
			continue
		}
		bad := bytes.Clone(p.Body)
		bad[at] ^= 1 << r.IntN(8)
		if q, err := Parse(bad); err == nil && q.Ref.Hash == p.Ref.Hash && (at < headerLen || int64(at) >= off) {
			t.Fatalf("flip at %d: same hash", at)
		} else if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
			t.Fatalf("flip at %d: %v", at, err)
		}
		if _, err := DecodeIndex(p.Ref, bad[off:off+n]); int64(at) >= off && int64(at) < off+n && !errors.Is(err, ErrDamaged) {
			t.Fatalf("flip at %d of the index: %v", at, err)
		}
		for i, f := range p.Index.Frames {
			if at < int(f.Off) || at >= int(f.Off+f.Len) {
				continue
			}
			if _, err := p.Index.DecodeFrame(uint32(i), bad[f.Off:f.Off+f.Len], nil); !errors.Is(err, ErrDamaged) {
				t.Fatalf("flip at %d in frame %d: %v", at, i, err)
			}
		}
	}
}

func TestUnknownVersions(t *testing.T) {
	b := NewBuilder(4096, nil)
	b.Add(0, text(rand.New(rand.NewPCG(1, 2)), 4096))
	p, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{8, len(p.Body) - trailerLen + 8} {
		bad := bytes.Clone(p.Body)
		bad[at] = 2
		if _, err := Parse(bad); !errors.Is(err, ErrVersion) {
			t.Errorf("version 2 at %d: %v", at, err)
		}
	}
	f := &p.Index.Frames[0]
	f.Codec = 128
	if _, err := p.Index.DecodeFrame(0, p.Body[f.Off:f.Off+f.Len], nil); !errors.Is(err, ErrVersion) {
		t.Errorf("codec 128: %v", err)
	}
	r := p.Ref
	off, n := r.IndexRange()
	index := bytes.Clone(p.Body[off : off+n])
	index[0] = 2
	r.IndexSum = sum16(index)
	if _, err := DecodeIndex(r, index); !errors.Is(err, ErrVersion) {
		t.Errorf("index version 2: %v", err)
	}
}

// The cost of random 4 KiB writes, the worst case of the format, stays under 5 %.
func TestOverheadOfScatteredNoise(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	b := NewBuilder(4096, nil)
	const sectors, total = 4096, 10 << 40 / 4096
	for i := range uint64(sectors) {
		b.Add(i*(total/sectors)+r.Uint64N(total/sectors), noise(r, 4096))
	}
	bound := b.Size()
	p, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	over := float64(len(p.Body))/(sectors*4096) - 1
	bounded := float64(bound)/(sectors*4096) - 1
	t.Logf("%.2f %% more than the data, Size said %.2f %%", 100*over, 100*bounded)
	if over > 0.005 || bounded > 0.02 {
		t.Errorf("overhead %f, bound %f", over, bounded)
	}
}

// A reused builder allocates the index and a few odds and ends, not the data.
func TestReuseAllocatesLittle(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	b := NewBuilder(4096, make(chan struct{}, 2))
	data := text(r, 4<<20)
	batch := func() {
		b.Reset()
		b.Add(3, data)
		if _, err := b.Finish(); err != nil {
			t.Fatal(err)
		}
	}
	batch()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 8 {
		batch()
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / 8; n > 400<<10 {
		t.Errorf("%d bytes allocated for a batch of %d", n, len(data))
	}
}

func TestRefEncoding(t *testing.T) {
	b := NewBuilder(4096, nil)
	b.AddZero(9, 3)
	p, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	enc := p.Ref.Append([]byte{1})
	got, rest, err := ConsumeRef(append(enc[1:], 7))
	if err != nil || got != p.Ref || !bytes.Equal(rest, []byte{7}) || len(enc) != 1+RefLen {
		t.Fatalf("%+v, %v, %v", got, rest, err)
	}
	if _, _, err := ConsumeRef(enc[1:RefLen]); !errors.Is(err, ErrDamaged) {
		t.Errorf("short: %v", err)
	}
	if _, _, err := ConsumeRef(make([]byte, RefLen)); !errors.Is(err, ErrDamaged) {
		t.Errorf("zeros: %v", err)
	}
}

// Each of these has a sum that fits; only the decoder stands between it and a reader.
func TestImpossibleIndexes(t *testing.T) {
	frame := func(codec byte, size ...byte) []byte { // Len and Raw in sectors, then the sum
		return append(append([]byte{codec}, size...), make([]byte, 16)...)
	}
	const stored = 100
	head := func(frames, extents byte) []byte { return []byte{version, 12, frames, extents} }
	good := slices.Concat(head(2, 3), frame(1, 60, 2), frame(1, 40, 1), []byte{5, 2 << 1, 0, 9<<1 | 1, 0, 1 << 1})
	if _, err := decodeIndex(good, stored); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"no bytes":               {},
		"no extents":             head(0, 0),
		"sector size 256":        slices.Concat([]byte{version, 8, 0, 1}, []byte{0, 3}),
		"sector size 8192":       slices.Concat([]byte{version, 13, 0, 1}, []byte{0, 3}),
		"sector size overflows":  slices.Concat([]byte{version, 64 + 12, 0, 1}, []byte{0, 3}),
		"frames too short":       slices.Concat(head(1, 1), frame(1, 99, 1), []byte{0, 2}),
		"frames too long":        slices.Concat(head(1, 1), frame(1, 101, 1), []byte{0, 2}),
		"a frame of no bytes":    slices.Concat(head(2, 2), frame(1, 100, 1), frame(1, 0, 1), []byte{0, 2, 0, 2}),
		"a frame of no sectors":  slices.Concat(head(1, 1), frame(1, 100, 0), []byte{0, 3}),
		"a frame above 128 KiB":  slices.Concat(head(1, 1), frame(1, 100, 33), []byte{0, 33 << 1}),
		"a frame not full":       slices.Concat(head(1, 1), frame(1, 100, 2), []byte{0, 2}),
		"a frame not used":       slices.Concat(head(1, 1), frame(1, 100, 2), []byte{0, 3}),
		"an extent across":       slices.Concat(head(2, 1), frame(1, 50, 1), frame(1, 50, 1), []byte{0, 2 << 1}),
		"an extent without data": slices.Concat(head(1, 2), frame(1, 100, 1), []byte{0, 2, 0, 2}),
		"an extent of 0 sectors": slices.Concat(head(1, 2), frame(1, 100, 1), []byte{0, 2, 0, 0}),
		"a long form":            slices.Concat(head(1, 1), frame(1, 100, 1), []byte{0x80, 0, 2}),
		"more bytes":             append(bytes.Clone(good), 0),
		"fewer bytes":            good[:len(good)-1],
	} {
		at := int64(stored)
		if len(b) < 10 {
			at = 0
		}
		if _, err := decodeIndex(b, at); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A pack that does not decode to what was added is not returned.
func TestVerifyBeforePublish(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	b := NewBuilder(4096, nil)
	b.Add(0, text(r, MaxFrame))
	b.Add(1000, noise(r, 4096))
	p, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.verify(p.Index); err != nil {
		t.Fatal(err)
	}
	if err := b.sealFrames(p.Index); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, MaxFrame} {
		b.raw[at] ^= 1
		if err := b.sealFrames(p.Index); !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d differs: %v", at, err)
		}
		b.raw[at] ^= 1
	}
	for _, change := range []func(ix *Index){
		func(ix *Index) { ix.Extents[1].First++ },
		func(ix *Index) { ix.Frames[0].Sum[0]++ },
	} {
		want := &Index{SectorSize: 4096, Extents: slices.Clone(p.Index.Extents), Frames: slices.Clone(p.Index.Frames)}
		change(want)
		if _, err := b.verify(want); !errors.Is(err, ErrDamaged) {
			t.Errorf("another index: %v", err)
		}
	}
}

// A copy has a name of its own and all that the pack has; what is not the pack is not copied.
func TestRename(t *testing.T) {
	b := NewBuilder(4096, nil)
	b.AddZero(7, 3)
	p, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	body := bytes.Clone(p.Body)
	q, err := Rename(p.Ref, p.Body)
	if err != nil {
		t.Fatal(err)
	}
	want := p.Ref
	want.Hash = q.Ref.Hash
	if q.Ref.Hash == p.Ref.Hash || q.Ref != want || !reflect.DeepEqual(q.Index, p.Index) || !bytes.Equal(body, p.Body) {
		t.Errorf("%+v, of %+v", q.Ref, p.Ref)
	}
	if _, err := Rename(q.Ref, p.Body); !errors.Is(err, ErrDamaged) {
		t.Errorf("another pack: %v", err)
	}
}
