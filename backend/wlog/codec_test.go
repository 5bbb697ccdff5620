package wlog

import (
	"math"
	"slices"
	"testing"
)

func sampleRecord() Record {
	return Record{Kind: KindWrite, Flags: FlagEnd | FlagSum, Seq: 7, First: 1 << 40, Count: 32, Seg: 3, Off: 136, Life: 0xfeed, Len: 131072, Sum: 9}
}

func FuzzRecord(f *testing.F) {
	id := LogID{1, 2, 3}
	r := sampleRecord()
	var p [recordSize]byte
	r.encode(p[:], 77, &id)
	f.Add(p[:])
	r = Record{Kind: KindZero, Flags: FlagPunch, Seq: math.MaxUint64, Count: math.MaxUint64, Life: 1}
	r.encode(p[:], 0, &id)
	f.Add(p[:])
	r = Record{Kind: KindMark, Seq: 2, First: 1, Life: 1}
	r.encode(p[:], 5, &id)
	f.Add(p[:])
	f.Add(make([]byte, recordSize))
	f.Fuzz(func(t *testing.T, p []byte) {
		var r Record
		if len(p) < recordSize || !r.decode(p) {
			return
		}
		// What decodes is what encode makes of it, but for the chain, which needs the record before.
		var q [recordSize]byte
		again := r
		again.encode(q[:], 0, &LogID{})
		if !slices.Equal(p[:recordBody], q[:recordBody]) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", p[:recordSize], r, q)
		}
	})
}

func TestRecordBitFlips(t *testing.T) {
	id := LogID{1, 2, 3}
	want := sampleRecord()
	var p [recordSize]byte
	want.encode(p[:], 77, &id)
	var got Record
	if !got.decode(p[:]) || got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	if chain(77, &id, p[:]) != got.Chain || chain(78, &id, p[:]) == got.Chain || chain(77, &LogID{1}, p[:]) == got.Chain {
		t.Error("the chain does not depend on what comes before")
	}
	for bit := range recordSize * 8 {
		p[bit/8] ^= 1 << (bit % 8)
		if got.decode(p[:]) {
			t.Errorf("bit %d flipped: still valid", bit)
		}
		p[bit/8] ^= 1 << (bit % 8)
	}
}

func sampleHead() Head {
	return Head{
		Volume: testVolume, BootID: "0b1e5d1e", Mark: 90, Clean: true,
		Settled: Barrier{LogID{1}, 40, 4}, base: Barrier{LogID{1}, 41, 5},
		Incarnations: []Incarnation{{LogID{1}, 30, Barrier{LogID{1}, 59, 6}}, {LogID{2}, 60, Barrier{}}},
	}
}

func FuzzHead(f *testing.F) {
	h := sampleHead()
	f.Add(h.encode())
	empty := Head{Incarnations: []Incarnation{{ID: LogID{1}, First: 1}}}
	f.Add(empty.encode())
	f.Add([]byte("glidelog"))
	f.Fuzz(func(t *testing.T, p []byte) {
		// The fuzzer cannot guess the checksum: fix it, and look behind it.
		if len(p) > 4 {
			p = slices.Clone(p)
			sum := Sum(p[:len(p)-4])
			p[len(p)-4], p[len(p)-3], p[len(p)-2], p[len(p)-1] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		}
		var h, again Head
		if h.decode(p) != nil {
			return
		}
		if err := again.decode(h.encode()); err != nil {
			t.Fatalf("%+v does not decode again: %v", h, err)
		}
		if again.Mark != h.Mark || again.base != h.base || len(again.Incarnations) != len(h.Incarnations) {
			t.Fatalf("%+v became %+v", h, again)
		}
	})
}

func TestHeadBitFlips(t *testing.T) {
	want := sampleHead()
	p := want.encode()
	var got Head
	if err := got.decode(p); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Incarnations, want.Incarnations) || got.Settled != want.Settled || got.base != want.base ||
		got.BootID != want.BootID || got.Mark != want.Mark || !got.Clean || got.Volume != want.Volume {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	for i := range p {
		p[i] ^= 0x10
		if got.decode(p) == nil {
			t.Errorf("byte %d changed: still valid", i)
		}
		p[i] ^= 0x10
	}
	if got.decode(p[:len(p)-1]) == nil {
		t.Error("a short head is valid")
	}
}

func FuzzSegmentHeader(f *testing.F) {
	var p [headerSize]byte
	h := segmentHeader{number: 3, life: 0xabcdef, size: defaultSegment, volume: testVolume, id: LogID{9}}
	h.encode(p[:])
	f.Add(p[:])
	f.Add(make([]byte, headerSize))
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) >= headerSize {
			p = slices.Clone(p[:headerSize])
			sum := Sum(p[:headerSize-4])
			p[508], p[509], p[510], p[511] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		}
		var h, again segmentHeader
		if h.decode(p) != nil {
			return
		}
		var q [headerSize]byte
		h.encode(q[:])
		if err := again.decode(q[:]); err != nil || again != h {
			t.Fatalf("%+v became %+v: %v", h, again, err)
		}
	})
}

func TestGeometry(t *testing.T) {
	for size := int64(minSegment); size <= maxSegment; size *= 2 {
		slots, blocks := recordArea(size)/recordSize, capacity(size)/blockSize
		if slots <= blocks || dataStart(size)%blockSize != 0 || capacity(size)%blockSize != 0 {
			t.Errorf("size %d: %d slots for %d blocks", size, slots, blocks)
		}
		if size >= defaultSegment && slots-blocks < blocks/lazyMark {
			t.Errorf("size %d: only %d slots to spare, a lazy mark comes every %d records", size, slots-blocks, lazyMark)
		}
	}
}
