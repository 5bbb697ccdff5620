package volume

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/vfs"
)

// promotion is a disk whose log holds little, in virtual time, so that segments go ahead of need.
type promotion struct {
	t     *testing.T
	r     *rig
	v     *Volume
	gets  *ledger
	clock int64
	rng   *rand.Rand
}

func newPromotion(t *testing.T) *promotion {
	p := &promotion{t: t, r: newRig(vfs.NewCrash(), "/state"), gets: &ledger{Store: mem.New()}, rng: rand.New(rand.NewPCG(1, 1))}
	p.r.st, p.r.tuning.NoCompaction = p.gets, true
	p.v = p.r.open(t, "a", OpenOptions{Create: 64 << 20})
	return p
}

func (p *promotion) write(data []byte, off int64) {
	p.t.Helper()
	if err := p.v.WriteAt(p.t.Context(), data, off, false); err != nil {
		p.t.Fatal(err)
	}
	synctest.Wait()
}

// read returns how many requests it took.
func (p *promotion) read(want []byte, off int64) int64 {
	p.t.Helper()
	before, got := p.gets.requests.Load(), make([]byte, len(want))
	if err := p.v.ReadAt(p.t.Context(), got, off); err != nil || !bytes.Equal(got, want) {
		p.t.Fatalf("read %d: wrong from byte %d, %v", off, firstDiff(got, want), err)
	}
	synctest.Wait()
	return p.gets.requests.Load() - before
}

// random data, of which every fourth byte can be compressed away or not.
func (p *promotion) random(n int, compressible bool) []byte {
	b := make([]byte, n)
	for i := range b {
		if !compressible || i%4 == 0 {
			b[i] = byte(p.rng.Uint32())
		}
	}
	return b
}

// giveUp writes elsewhere until the log has nothing left of what it has now. Writers never wait.
func (p *promotion) giveUp() {
	p.t.Helper()
	for range 24 {
		for range 8 {
			p.clock++
			p.write(p.random(4096, false), 32<<20+p.clock%2048*4096)
		}
		mustSync(p.t, p.v)
		synctest.Wait()
	}
}

func (p *promotion) inLog(off, n int64) bool {
	p.v.mu.Lock()
	defer p.v.mu.Unlock()
	r, ok := p.v.mu.m.at(p.v.mu.m.seek(uint64(off / 4096)))
	return ok && r.first < uint64((off+n)/4096)
}

// checkCache compares each cached frame of each pack with what the pack says it is.
func (p *promotion) checkCache() (frames int) {
	p.t.Helper()
	for in, err := range p.gets.List(p.t.Context(), "packs/", "") {
		if err != nil {
			p.t.Fatal(err)
		}
		body, _, err := p.gets.Get(p.t.Context(), in.Key, store.Range{})
		if err != nil {
			p.t.Fatal(err)
		}
		pk, err := pack.Parse(body)
		if err != nil {
			p.t.Fatal(err)
		}
		for i, f := range pk.Index.Frames {
			hit, ok := p.r.c.Get(frameKey(pk.Ref.Hash, uint32(i)))
			if !ok {
				continue
			}
			frames++
			want, err := pk.Index.DecodeFrame(uint32(i), body[f.Off:f.Off+f.Len], nil)
			got := make([]byte, len(want))
			if rerr := hit.ReadAt(got, 0); err != nil || rerr != nil || !bytes.Equal(got, want) {
				p.t.Errorf("%s frame %d in the cache: wrong from byte %d, %v, %v", in.Key, i, firstDiff(got, want), err, rerr)
			}
			hit.Release()
		}
	}
	return frames
}

func (p *promotion) end() {
	p.v.Kill(ErrClosed)
	_ = p.r.c.Close()
}

// TestReadDataOutlivesTheLog: what was read while it was in the log is in the clean cache when the log has let it go, whole
// frames of it, compressed or not, also where its sectors are scattered over the segments; what nobody read is not.
func TestReadDataOutlivesTheLog(t *testing.T) {
	for _, compressible := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := newPromotion(t)
			defer p.end()
			hot, cold := p.random(96<<10, compressible), p.random(96<<10, compressible)
			p.write(hot[:40<<10], 0)
			p.write(cold, 1<<20)
			p.write(hot[40<<10:], 40<<10)
			var dots [24][]byte // 24 sectors apart from each other, in an order that is not theirs
			for i := range dots {
				k := i * 7 % len(dots)
				dots[k] = p.random(4096, compressible)
				p.write(dots[k], 2<<20+int64(k)*64<<10)
				p.write(p.random(4096, false), 16<<20+int64(i)*4096)
			}
			mustSync(t, p.v)
			p.read(hot[4096:8192], 4096) // one sector of a frame
			p.read(hot[80<<10:84<<10], 80<<10)
			for k := 0; k < 8; k++ {
				p.read(dots[k], 2<<20+int64(k)*64<<10)
			}
			p.giveUp()
			if p.inLog(0, 4<<20) {
				t.Fatal("the log has not let go")
			}
			if n := p.read(hot, 0); n != 0 {
				t.Errorf("what was read is fetched again with %d requests", n)
			}
			for k := range 8 {
				if n := p.read(dots[k], 2<<20+int64(k)*64<<10); n != 0 {
					t.Errorf("sector %d, which was read, is fetched again", k)
				}
			}
			if n := p.read(cold, 1<<20); n == 0 {
				t.Error("what nobody read is in the cache")
			}
			if n := p.r.h.Counters().Promoted; n == 0 || n > 8 {
				t.Errorf("%d frames were promoted", n)
			}
		})
	}
}

// TestOldVersionsAreNotPromoted: frames of which a part was overwritten, before or after the upload, don't bring old bytes
// back.
func TestOldVersionsAreNotPromoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPromotion(t)
		defer p.end()
		data := p.random(96<<10, true)
		p.write(data, 0)
		mustSync(t, p.v)
		for round := range 3 {
			p.read(data, 0)
			copy(data[8192:], p.random(4096, true))
			p.write(data[8192:12288], 8192)
			if round > 0 {
				mustSync(t, p.v)
			}
			p.read(data, 0)
		}
		p.giveUp()
		p.checkCache()
		p.read(data, 0)
		p.giveUp()
		p.checkCache()
		p.read(data, 0)
	})
}

// TestNobodyWaitsForPromotion: with a writer that waits nothing is promoted.
func TestNobodyWaitsForPromotion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPromotion(t)
		defer p.end()
		data := p.random(96<<10, false)
		p.write(data, 0)
		mustSync(t, p.v)
		p.read(data, 0)
		p.v.waiting.Add(1)
		p.giveUp()
		p.v.waiting.Add(-1)
		if n := p.r.h.Counters().Promoted; n != 0 {
			t.Errorf("%d frames were promoted", n)
		}
		if p.read(data, 0) == 0 {
			t.Error("the log has not let go")
		}
	})
}
