package ublk

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"testing"

	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/frontendtest"
)

// liar promises extents in a file that ends too early and cannot be written.
type liar struct {
	*frontendtest.MemDisk
	file    *os.File // open for reading, 4 KiB long
	extents int64
	abandon int
}

func (l *liar) MapRead(off, n int64, plan *frontends.Plan) bool {
	fd := int(l.file.Fd())
	for i := range l.extents {
		plan.Extents = append(plan.Extents, frontends.Extent{FD: fd, Direct: fd, Off: i * 1024, Len: n / l.extents})
	}
	return true
}

func (l *liar) TryReserve(off, n int64, place *frontends.Placement) bool {
	fd := int(l.file.Fd())
	place.Extents = append(place.Extents[:0], frontends.Extent{FD: fd, Direct: fd, Len: n})
	return true
}

func (l *liar) Reserve(context.Context, int64, int64, *frontends.Placement) error { panic("not asked") }
func (l *liar) Commit([]frontends.Write) error                                    { panic("nothing arrived") }
func (l *liar) Abandon(*frontends.Placement)                                      { l.abandon++ }

// TestRingFails: requests whose operations fail on the ring, or come short, are done the slow way, with the right bytes.
func TestRingFails(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		s := openServer(t, zeroCopy)
		path := t.TempDir() + "/short"
		if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		for _, extents := range []int64{1, 2} {
			disk := &liar{MemDisk: frontendtest.NewMemDisk(mib, 4096), file: file, extents: extents}
			name := t.Name() + string(rune('0'+extents))
			dev, err := s.Add(soon(t), name, disk, AddOptions{})
			if err != nil {
				t.Fatal(err)
			}
			f, p, q := openDirect(t, dev.Path()), alignedBytes(t, 256<<10), alignedBytes(t, 256<<10)
			rand.Read(p)
			for range 20 {
				if _, err := f.WriteAt(p, 4096); err != nil {
					t.Fatal(err)
				}
				clear(q)
				if _, err := f.ReadAt(q, 4096); err != nil || !bytes.Equal(p, q) {
					t.Fatalf("%d extents: %v, or other bytes", extents, err)
				}
			}
			f.Close()
			if err := s.Remove(soon(t), name, false); err != nil {
				t.Error(err)
			}
			if disk.abandon < 20 {
				t.Errorf("%d reservations given back", disk.abandon)
			}
		}
		if n := s.Stats().Slow; n < 80 {
			t.Errorf("%d requests went the slow way", n)
		}
	})
}
