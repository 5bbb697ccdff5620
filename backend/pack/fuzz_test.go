package pack

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// known fails the test for an error that callers could not tell apart.
func known(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
		t.Fatal(err)
	}
}

// seeds are small packs: the fuzzer is quicker with them.
func seeds(f *testing.F) (packs []*Pack) {
	r := rand.New(rand.NewPCG(1, 9))
	for _, use := range []func(b *Builder){
		func(b *Builder) { b.Add(7, text(r, 512)) },
		func(b *Builder) { b.Add(0, noise(r, 512)); b.AddZero(1, 1<<40); b.Add(1<<41, text(r, 2048)) },
		func(b *Builder) { b.AddZero(9, 1) },
	} {
		b := NewBuilder(512, nil)
		use(b)
		p, err := b.Finish()
		if err != nil {
			f.Fatal(err)
		}
		packs = append(packs, p)
	}
	return packs
}

func FuzzDecodeIndex(f *testing.F) {
	for _, p := range seeds(f) {
		off, n := p.Ref.IndexRange()
		f.Add(p.Body[off:off+n], int64(off)-headerLen)
	}
	f.Add([]byte{version, 12, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 3}, int64(0))
	f.Add([]byte{version, 12, 0xff, 0xff, 0xff, 0xff, 0x0f, 0xff, 0xff, 0xff, 0xff, 0x0f}, int64(0))
	f.Add([]byte{version, 12, 0, 1, 0, 1}, int64(0))
	f.Fuzz(func(t *testing.T, b []byte, stored int64) {
		ix, err := decodeIndex(b, stored)
		if err != nil {
			known(t, err)
			return
		}
		if !bytes.Equal(ix.append(nil), b) {
			t.Fatal("it encodes to something else again")
		}
		if cap(ix.Extents) > len(b) || cap(ix.Frames) > len(b) {
			t.Fatal("more allocated than the input warrants")
		}
		last := uint64(0)
		for _, e := range ix.Extents {
			if e.First < last || e.End() <= e.First || e.End() > maxEnd {
				t.Fatalf("%+v after %d", e, last)
			}
			last = e.End()
			if e.Frame != ZeroFrame && uint64(e.Off)+e.Count*uint64(ix.SectorSize) > uint64(ix.Frames[e.Frame].Raw) {
				t.Fatalf("%+v goes beyond its frame", e)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, p := range seeds(f) {
		f.Add(bytes.Clone(p.Body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > headerLen+trailerLen { // get past the sum
			end := len(body) - trailerLen
			n := min(uint32(end-headerLen), uint32(body[end+16])|uint32(body[end+17])<<8)
			sum := sum16(body[end-int(n) : end])
			copy(body[end+24:], sum[:])
		}
		p, err := Parse(body)
		if err != nil {
			known(t, err)
			return
		}
		for i, fr := range p.Index.Frames {
			if _, err := p.Index.DecodeFrame(uint32(i), body[fr.Off:fr.Off+fr.Len], nil); err != nil {
				known(t, err)
			}
		}
	})
}

func FuzzDecodeFrame(f *testing.F) {
	for _, p := range seeds(f) {
		for _, fr := range p.Index.Frames {
			f.Add(fr.Codec, fr.Raw, p.Body[fr.Off:fr.Off+fr.Len])
		}
	}
	f.Fuzz(func(t *testing.T, codec uint8, raw uint32, stored []byte) {
		raw = raw%MaxFrame + 1
		ix := &Index{Frames: []Frame{{Len: uint32(len(stored)), Raw: raw, Codec: codec, Sum: sum16(stored)}}}
		got, err := ix.DecodeFrame(0, stored, make([]byte, 0, 7))
		if err != nil {
			known(t, err)
		} else if len(got) != int(raw) {
			t.Fatalf("%d bytes, want %d", len(got), raw)
		}
	})
}

func FuzzConsumeRef(f *testing.F) {
	for _, p := range seeds(f) {
		f.Add(p.Ref.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, rest, err := ConsumeRef(b)
		if err != nil {
			known(t, err)
			return
		}
		if off, n := r.IndexRange(); off < headerLen || n < 0 || off+n > int64(r.Size) {
			t.Fatalf("index at %d, %d bytes, of %d", off, n, r.Size)
		}
		if !bytes.Equal(append(r.Append(nil), rest...), b) {
			t.Fatal("it encodes to something else again")
		}
	})
}

// FuzzBuild builds a pack of whatever the input describes and reads it back.
func FuzzBuild(f *testing.F) {
	f.Add([]byte{0, 3, 7, 1, 255, 9, 2, 40, 8}, uint64(5), false)
	f.Add([]byte{1, 200, 1, 0, 200, 2, 0, 200, 3, 0, 1, 0}, uint64(1<<40), true)
	f.Fuzz(func(t *testing.T, program []byte, at uint64, small bool) {
		size := 4096
		if small {
			size = 512
		}
		at %= maxEnd / 2
		b := NewBuilder(size, nil)
		want := disk{}
		for ; len(program) >= 3 && len(want) < 4000; program = program[3:] {
			gap, count, fill := program[0], uint64(program[1]), program[2]
			at += uint64(gap)
			data := bytes.Repeat([]byte{fill}, int(count)*size)
			b.Add(at, data)
			for i := range count {
				want[at+i] = nil
				if fill != 0 {
					want[at+i] = data[:size]
				}
			}
			at += count
		}
		p, err := b.Finish()
		if (err != nil) != (len(want) == 0) {
			t.Fatal(err)
		}
		if err == nil {
			compare(t, read(t, p.Ref, p.Body), want)
		}
	})
}
