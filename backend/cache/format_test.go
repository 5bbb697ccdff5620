package cache

import (
	"bytes"
	"testing"

	"glidefs-appliance/backend/vfs"
)

func entryOf(life uint64, pos uint32, k Key, data []byte) []byte {
	p := make([]byte, entryLen(uint32(len(data))))
	encodeEntry(p, life, pos, k, data)
	return p
}

func TestEntry(t *testing.T) {
	data := content(key(3), 10_000)
	p := entryOf(7, 64, key(3), data)
	k, size, sums, ok := decodeEntry(p, 7, 64)
	if !ok || k != key(3) || size != 10_000 || !intact(data, sums) {
		t.Fatalf("decodeEntry = %v, %d, %v", k, size, ok)
	}
	for _, i := range []int{0, 4095, 4096, 9999} {
		data[i] ^= 1
		if intact(data, sums) {
			t.Errorf("change at %d not noticed", i)
		}
		data[i] ^= 1
	}
	if _, _, _, ok := decodeEntry(p, 8, 64); ok {
		t.Error("entry of another life taken")
	}
	if _, _, _, ok := decodeEntry(p, 7, 0); ok {
		t.Error("entry of another position taken")
	}
	for i := range len(p) * 8 {
		p[i/8] ^= 1 << (i % 8)
		if _, _, _, ok := decodeEntry(p, 7, 64); ok {
			t.Errorf("flipped bit %d not noticed", i)
		}
		p[i/8] ^= 1 << (i % 8)
	}
}

// The index must have room for as many entries as fit into the data, whatever their sizes.
func TestGeometry(t *testing.T) {
	for size := int64(minBlocks * blockSize); size <= 512<<20; size += size/7/blockSize*blockSize + blockSize {
		g := newGeometry(size)
		data := int64(g.blocks - g.data)
		if data < 1 || g.indexLen() < data*entryMin {
			t.Errorf("%d bytes: %d data blocks, %d bytes of index", size, data, g.indexLen())
		}
		if waste := g.indexLen() - data*entryMin; waste >= blockSize+entryMin {
			t.Errorf("%d bytes: %d bytes of index can't be used", size, waste)
		}
	}
	for n := range uint32(MaxFrame/blockSize) + 1 {
		if n > 0 && entryLen(n*blockSize) > n*entryMin {
			t.Errorf("%d blocks need more index than %d frames of a block", n, n)
		}
	}
}

func FuzzHeader(f *testing.F) {
	p := make([]byte, headerLen)
	header{blocks: 16, life: 5, seq: 6}.encode(p)
	f.Add(p)
	f.Add(p[:20])
	f.Fuzz(func(t *testing.T, p []byte) {
		h, ok := decodeHeader(p)
		if !ok {
			return
		}
		again := make([]byte, headerLen)
		h.encode(again)
		if !bytes.Equal(again, p[:headerLen]) {
			t.Errorf("%+v does not encode to what it was decoded from", h)
		}
	})
}

func FuzzEntry(f *testing.F) {
	f.Add(entryOf(1, 0, key(1), content(key(1), 5000)))
	f.Add(entryOf(1, 0, key(1), []byte{1}))
	f.Add(make([]byte, entryMin))
	f.Fuzz(func(t *testing.T, p []byte) {
		_, size, sums, ok := decodeEntry(p, 1, 0)
		if ok && (size == 0 || size > MaxFrame || len(sums) != int(4*blocksOf(size))) {
			t.Errorf("size %d with %d bytes of sums", size, len(sums))
		}
	})
}

// FuzzSegment opens a cache whose only segment has a good header and anything behind it. What it finds must be where
// data can be.
func FuzzSegment(f *testing.F) {
	const life = 9
	one := entryOf(life, 0, key(1), content(key(1), 5000))
	two := append(bytes.Clone(one), entryOf(life, uint32(len(one)), key(2), []byte{1, 2, 3})...)
	f.Add(one)
	f.Add(two)
	f.Add(append(bytes.Clone(two), entryOf(life, uint32(len(two)), key(3), make([]byte, MaxFrame))...))
	f.Fuzz(func(t *testing.T, index []byte) {
		disk := vfs.NewCrash()
		if err := disk.MkdirAll("cache"); err != nil {
			t.Fatal(err)
		}
		head := make([]byte, blockSize)
		header{blocks: testSegment / blockSize, life: life, seq: 1}.encode(head)
		file, _ := disk.Create("cache/x" + suffix)
		file.WriteAt(head, 0)
		file.WriteAt(index, blockSize)
		c := open(t, testOptions(disk, "cache", 4))
		defer c.Close()
		for i, f := range c.mu.index.slots {
			if f.size == 0 {
				continue
			}
			if geo := c.mu.slots[f.seg].geo; f.block < geo.data || f.block+blocksOf(f.bytes()) > geo.blocks {
				t.Errorf("slot %d: %+v", i, f)
			}
			if h, ok := c.Get(f.key); ok {
				h.Release()
			}
		}
		put(c, 50)
		if !has(t, c, 50) {
			t.Error("can't be used any more")
		}
	})
}
