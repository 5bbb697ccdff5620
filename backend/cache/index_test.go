package cache

import (
	"math/rand/v2"
	"runtime"
	"testing"

	"glidefs-appliance/backend/vfs"
)

// The index against a map, with keys that collide.
func TestIndexModel(t *testing.T) {
	for _, collide := range []bool{false, true} {
		var x index
		x.init()
		x.table = make([]uint32, 4)
		model := map[Key]uint32{}
		rng := rand.New(rand.NewPCG(1, 2))
		random := func() Key {
			k := key(rng.IntN(3000))
			if collide {
				k = Key{Object: [16]byte{8: byte(rng.IntN(20))}, Frame: uint32(rng.IntN(4))} // four home cells for 80 keys
			}
			return k
		}
		for step := range 60_000 {
			k := random()
			slot := x.find(&k)
			if want, ok := model[k]; ok != (slot != none) || ok && slot != want {
				t.Fatalf("step %d: find = %d, want %d, %v", step, slot, want, ok)
			}
			if slot == none {
				model[k] = x.add(frame{key: k, size: 1})
			} else if rng.IntN(2) == 0 {
				x.drop(slot)
				x.release(slot)
				delete(model, k)
			}
			if x.count != len(model) || x.bytes != int64(len(model)) {
				t.Fatalf("step %d: %d frames, %d bytes, want %d", step, x.count, x.bytes, len(model))
			}
		}
	}
}

// The index is all that grows with the number of frames.
func TestMemoryPerFrame(t *testing.T) {
	const n = 700_000
	var x index
	x.init()
	before := heap()
	for i := range n {
		x.add(frame{key: Key{Frame: uint32(i), Object: [16]byte{0: byte(i), 1: byte(i >> 8), 2: byte(i >> 16)}}, size: 1})
	}
	if per := float64(heap()-before) / n; per > 64 {
		t.Errorf("%.1f bytes a frame", per)
	} else {
		t.Logf("%.1f bytes a frame", per)
	}
	runtime.KeepAlive(&x)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestHotReadDoesNotAllocate(t *testing.T) {
	c := open(t, testOptions(vfs.OS(), t.TempDir(), 8))
	put(c, 1)
	p := make([]byte, 4096)
	if n := testing.AllocsPerRun(1000, func() {
		h, ok := c.Get(key1)
		if !ok || h.ReadAt(p, 4096) != nil {
			t.Fatal("not there")
		}
		h.Release()
		if h, ok := c.Probe(key1); ok {
			_ = h.File().Fd()
			h.Release()
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

var key1 = key(1)

func BenchmarkGet(b *testing.B) {
	c := open(b, Options{FS: vfs.OS(), Dir: b.TempDir(), Size: 64 << 20})
	c.Put(key1, content(key1, 128<<10))
	p := make([]byte, 4096)
	b.Run("4k", func(b *testing.B) {
		for b.Loop() {
			h, _ := c.Get(key1)
			h.ReadAt(p, 8192)
			h.Release()
		}
	})
	b.Run("pin", func(b *testing.B) {
		for b.Loop() {
			h, _ := c.Get(key1)
			h.Release()
		}
	})
}

func BenchmarkPut(b *testing.B) {
	c := open(b, Options{FS: vfs.OS(), Dir: b.TempDir(), Size: 512 << 20})
	data := content(key1, 128<<10)
	b.SetBytes(128 << 10)
	i := 0
	for b.Loop() {
		c.Put(key(i), data)
		i++
	}
	b.ReportMetric(float64(c.Stats().Dropped)/float64(i), "dropped/op")
}

// BenchmarkOpen takes over 100,000 frames. They are of one block each, so that the disk stays small.
func BenchmarkOpen(b *testing.B) {
	o := Options{FS: vfs.OS(), Dir: b.TempDir(), Size: 600 << 20, SegmentSize: 32 << 20}
	c := open(b, o)
	data := make([]byte, 4096)
	for i := range 100_000 {
		c.Put(key(i), data)
	}
	c.Close()
	for b.Loop() {
		c, err := Open(o)
		if err != nil {
			b.Fatal(err)
		}
		if n := c.Stats().Frames; n != 100_000 {
			b.Fatalf("%d frames", n)
		}
		c.Close()
	}
}
