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
	done  *[3]int // of all machines of a test: steps of compaction, segments given up, batches
}

const (
	merges = iota
	evictions
	batches
)

// tally counts what this host has done, before it ends.
func (m *machine) tally() {
	c := m.r.h.Counters()
	m.done[merges] += int(c.Merges)
	m.done[batches] += int(c.Batches)
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

// evict gives up every segment that the store has.
func (m *machine) evict(t *rapid.T) {
	mustSync(t, m.v)
	m.v.log.Trim(func(uint32) bool {
		m.done[evictions]++
		return true
	})
}

// die ends the process. What it had in hand does nothing any more to the disk that the next one finds.
func (m *machine) die(reboot bool) {
	m.r.fs = m.r.fs.(*vfs.Crash).Kill()
	m.r.kill(m.v, reboot)
}

func (m *machine) reopen(t *rapid.T) {
	m.tally()
	switch rapid.IntRange(0, 3).Draw(t, "how") {
	case 0:
		m.die(false)
	case 1: // a power cut that lost nothing: flushed before
		if err := m.v.Flush(context.Background()); err != nil {
			t.Fatalf("flush: %v", err)
		}
		m.die(true)
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
	m.tally()
	m.r.close(t, m.v)
	m.r.state++
	m.r.fs, m.r.dir = vfs.NewCrash(), "/elsewhere"
	m.v = m.r.open(t, "disk", OpenOptions{})
	m.compare(t, 0, int64(len(m.model)))
}

// testModel has room in the log for all of the disk, for a part of it, or for two segments: then nearly every write waits for an
// upload and for a segment that is given up.
func testModel(t *testing.T, sector int) {
	var done [3]int
	rapid.Check(t, func(t *rapid.T) {
		r := newRig(vfs.NewCrash(), "/state")
		r.log = rapid.SampledFrom([]int64{0, 256 << 10, 2 << 20}).Draw(t, "log")
		r.tuning.TailPacks = rapid.IntRange(1, 3).Draw(t, "tail")
		r.tuning.LevelBytes = rapid.SampledFrom([]int64{32 << 10, 256 << 10}).Draw(t, "level")
		r.tuning.InlineBytes = rapid.SampledFrom([]int64{1, 4 << 10}).Draw(t, "inline")
		m := &machine{r: r, model: make([]byte, 1<<20), rng: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)), done: &done}
		m.v = r.open(t, "disk", OpenOptions{Create: int64(len(m.model)), Sector: sector})
		defer func() {
			m.tally()
			r.kill(m.v, false)
		}()
		actions := map[string]func(*rapid.T){
			"write":   m.write,
			"write2":  m.write,
			"write3":  m.write,
			"read":    m.read,
			"discard": m.discard,
			"zeroes":  m.zeroes,
			"flush": func(t *rapid.T) {
				if err := m.v.Flush(context.Background()); err != nil {
					t.Fatalf("flush: %v", err)
				}
			},
			"sync":    func(t *rapid.T) { mustSync(t, m.v) },
			"sync2":   func(t *rapid.T) { mustSync(t, m.v) },
			"evict":   m.evict,
			"compact": func(t *rapid.T) { m.v.compactNow(t) },
			"verify":  m.verify,
			"reopen":  m.reopen,
			"away":    m.away,
			"":        func(t *rapid.T) {},
		}
		for range 2 { // rounds of some 30 actions
			t.Repeat(actions)
		}
		m.compare(t, 0, int64(len(m.model)))
	})
	t.Logf("%d merges, %d segments given up, %d batches", done[merges], done[evictions], done[batches])
	if !t.Failed() && !testing.Short() && (done[merges] < 20 || done[evictions] < 10 || done[batches] < 100) {
		t.Error("that is hardly anything: the test has lost its bite")
	}
}

func TestModel4096(t *testing.T) { testModel(t, 4096) }
func TestModel512(t *testing.T)  { testModel(t, 512) }
