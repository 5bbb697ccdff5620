package ublk

import (
	"bytes"
	"context"
	"crypto/rand"
	"path/filepath"
	"testing"

	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/frontendtest"

	"golang.org/x/sys/unix"
)

// scattered lies in a file as it is, but says so in pieces: one sector, then blocks that meet in the middle of the
// guest's pages.
type scattered struct {
	*frontendtest.FileDisk
	fd int // past the page cache
}

func (s scattered) extents(off, n int64, list []frontends.Extent) []frontends.Extent {
	for size := int64(512); n > 0; size = 4096 {
		size = min(size, n)
		list = append(list, frontends.Extent{FD: s.fd, Direct: s.fd, Off: off, Len: size})
		off, n = off+size, n-size
	}
	return list
}

func (s scattered) MapRead(off, n int64, plan *frontends.Plan) bool {
	plan.Extents = s.extents(off, n, plan.Extents)
	return true
}

func (s scattered) TryReserve(off, n int64, place *frontends.Placement) bool {
	place.Extents = s.extents(off, n, place.Extents[:0])
	return true
}

func (s scattered) Reserve(_ context.Context, off, n int64, place *frontends.Placement) error {
	s.TryReserve(off, n, place)
	return nil
}

func (s scattered) Commit(writes []frontends.Write) error {
	for _, w := range writes {
		s.Abandon(w.Place)
	}
	return nil
}

func (s scattered) Abandon(p *frontends.Placement) { p.Extents, p.Sums = p.Extents[:0], p.Sums[:0] }

var (
	_ frontends.Mapper = scattered{}
	_ frontends.Placer = scattered{}
)

// TestManyParts: requests in many places, direct, with seams inside the pages of the guest.
func TestManyParts(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		path := filepath.Join(stateDir(t), "disk")
		disk, err := frontendtest.OpenFileDisk(path, mib, 512)
		if err != nil {
			t.Fatal(err)
		}
		defer disk.Close()
		file := openDirect(t, path)
		s := openServer(t, zeroCopy)
		f := openDirect(t, serve(t, s, "disk", scattered{disk, int(file.Fd())}).Path())
		defer f.Close()
		const size = 64 << 10
		p, want := alignedBytes(t, size), make([]byte, size)
		for i := size - 4096; i >= 0; i -= 4096 {
			p[i] = 1 // so that few pages are neighbours in memory
		}
		for round := range int64(100) {
			rand.Read(want)
			copy(p, want)
			off := round * 4608 % (mib - size)
			if _, err := f.WriteAt(p, off); err != nil {
				t.Fatal(err)
			}
			clear(p)
			if n, err := unix.Pread(int(file.Fd()), p, off); n != size || err != nil || !bytes.Equal(p, want) {
				t.Fatalf("round %d: the file: %d, %v, or other bytes than were written", round, n, err)
			}
			clear(p)
			if _, err := f.ReadAt(p, off); err != nil || !bytes.Equal(p, want) {
				t.Fatalf("round %d: %v, or other bytes than are there", round, err)
			}
		}
		if n := s.Stats(); n.Slow > 0 || zeroCopy && !s.twoAtMost && n.Copied > 0 {
			t.Errorf("%+v", n)
		}
	})
}
