package volume

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"glidefs-appliance/backend/vfs"
)

// machine is a disk beside a byte array.
type machine struct {
	r     *rig
	v     *Volume
	model []byte
	rng   *rand.Rand
}

func (m *machine) span(t *rapid.T) (off, n int64) {
	size := int64(len(m.model))
	off = rapid.Int64Range(0, size-1).Draw(t, "off")
	n = rapid.Int64Range(1, min(size-off, rapid.SampledFrom([]int64{1, 600, 5000, 70_000, 400_000}).Draw(t, "most"))).Draw(t, "n")
	if rapid.Bool().Draw(t, "aligned") {
		sector := int64(m.v.SectorSize())
		off = off / sector * sector
		n = min((n+sector-1)/sector*sector, size-off)
	}
	return off, n
}

func (m *machine) write(t *rapid.T) {
	off, n := m.span(t)
	p := m.model[off : off+n]
	for i := range p {
		p[i] = byte(m.rng.Uint32())
	}
	if rapid.Bool().Draw(t, "compressible") {
		copy(p[n/2:], bytes.Repeat([]byte("glide"), int(n)))
	}
	if err := m.v.WriteAt(context.Background(), p, off, rapid.Bool().Draw(t, "fua")); err != nil {
		t.Fatalf("write [%d, +%d): %v", off, n, err)
	}
}

func (m *machine) zeroes(t *rapid.T) {
	off, n := m.span(t)
	clear(m.model[off : off+n])
	if err := m.v.WriteZeroes(context.Background(), off, n); err != nil {
		t.Fatalf("zeroes [%d, +%d): %v", off, n, err)
	}
}

func (m *machine) discard(t *rapid.T) {
	off, n := m.span(t)
	sector := int64(m.v.SectorSize())
	lo, hi := (off+sector-1)/sector*sector, (off+n)/sector*sector
	if lo < hi {
		clear(m.model[lo:hi])
	}
	if err := m.v.Discard(context.Background(), off, n); err != nil {
		t.Fatalf("discard [%d, +%d): %v", off, n, err)
	}
}

func (m *machine) read(t *rapid.T) {
	off, n := m.span(t)
	m.compare(t, off, n)
}

func (m *machine) compare(t *rapid.T, off, n int64) {
	p := make([]byte, n)
	if err := m.v.ReadAt(context.Background(), p, off); err != nil {
		t.Fatalf("read [%d, +%d): %v", off, n, err)
	}
	if i := firstDiff(p, m.model[off:off+n]); i >= 0 {
		t.Fatalf("read [%d, +%d): byte %d (sector %d) is %#x, want %#x", off, n, off+int64(i), (off+int64(i))/int64(m.v.SectorSize()), p[i], m.model[off+int64(i)])
	}
}

func firstDiff(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

func (m *machine) reopen(t *rapid.T) {
	switch rapid.IntRange(0, 3).Draw(t, "how") {
	case 0:
		m.r.kill(m.v, false)
	case 1: // a power cut that lost nothing: flushed before
		if err := m.v.Flush(context.Background()); err != nil {
			t.Fatalf("flush: %v", err)
		}
		m.r.kill(m.v, true)
	case 2:
		mustSync(t, m.v)
		m.r.close(t, m.v)
	case 3:
		var pending *PendingError
		if err := m.v.Close(context.Background()); err != nil && !errors.As(err, &pending) {
			t.Fatalf("close: %v", err)
		}
		_ = m.r.c.Close()
		m.r.h = nil
	}
	m.v = m.r.open(t, "disk", OpenOptions{})
	m.compare(t, 0, int64(len(m.model)))
}

func (m *machine) verify(t *rapid.T) {
	rep, err := Verify(context.Background(), m.r.h, "disk", nil)
	if err != nil || len(rep.Damage) > 0 {
		t.Fatalf("verify: %+v, %v", rep, err)
	}
}

// away loses the machine and opens the disk elsewhere.
func (m *machine) away(t *rapid.T) {
	mustSync(t, m.v)
	m.r.close(t, m.v)
	m.r.state++
	m.r.fs, m.r.dir = vfs.NewCrash(), "/elsewhere"
	m.v = m.r.open(t, "disk", OpenOptions{})
	m.compare(t, 0, int64(len(m.model)))
}

func testModel(t *testing.T, sector int) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRig(vfs.NewCrash(), "/state")
		m := &machine{r: r, model: make([]byte, 3<<20), rng: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))}
		m.v = r.open(t, "disk", OpenOptions{Create: int64(len(m.model)), Sector: sector})
		defer func() { r.kill(m.v, false) }()
		t.Repeat(map[string]func(*rapid.T){
			"write":   m.write,
			"write2":  m.write,
			"read":    m.read,
			"discard": m.discard,
			"zeroes":  m.zeroes,
			"flush": func(t *rapid.T) {
				if err := m.v.Flush(context.Background()); err != nil {
					t.Fatalf("flush: %v", err)
				}
			},
			"sync":   func(t *rapid.T) { mustSync(t, m.v) },
			"verify": m.verify,
			"reopen": m.reopen,
			"away":   m.away,
			"":       func(t *rapid.T) {},
		})
		m.compare(t, 0, int64(len(m.model)))
	})
}

func TestModel4096(t *testing.T) { testModel(t, 4096) }
func TestModel512(t *testing.T)  { testModel(t, 512) }
