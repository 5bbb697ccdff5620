package ublk

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/frontendtest"

	"golang.org/x/sys/unix"
)

// takesTurns is a disk whose placements lie in two files in turn, in pieces of 4 KiB; it notes what is committed.
type takesTurns struct {
	*frontendtest.MemDisk
	files [2]*os.File

	mu     sync.Mutex
	next   int64
	writes int
	sums   int
	broken bool // the next placements are in a file that cannot be written
}

func (d *takesTurns) openFiles(t *testing.T) {
	t.Helper()
	for i := range d.files {
		f, err := os.Create(filepath.Join(t.TempDir(), "place"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		d.files[i] = f
	}
}

func (d *takesTurns) TryReserve(off, n int64, place *frontends.Placement) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ; n > 0; n -= 4096 {
		fd := int(d.files[d.next/4%2].Fd())
		if d.broken {
			fd = -1
		}
		place.Extents = append(place.Extents, frontends.Extent{FD: fd, Direct: fd, Off: d.next * 4096, Len: min(n, 4096)})
		d.next++
	}
	return true
}

func (d *takesTurns) Reserve(context.Context, int64, int64, *frontends.Placement) error {
	panic("not asked")
}

func (d *takesTurns) Commit(writes []frontends.Write) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range writes {
		off := w.Off
		for _, e := range w.Place.Extents {
			p := make([]byte, e.Len)
			if _, err := unix.Pread(e.FD, p, e.Off); err != nil {
				return err
			}
			if err := d.MemDisk.WriteAt(context.Background(), p, off, false); err != nil {
				return err
			}
			off += e.Len
		}
		d.writes++
		d.sums += len(w.Place.Sums)
		w.Place.Extents, w.Place.Sums = w.Place.Extents[:0], w.Place.Sums[:0]
	}
	return nil
}

func (d *takesTurns) Abandon(place *frontends.Placement) {
	place.Extents, place.Sums = place.Extents[:0], place.Sums[:0]
}

// TestShortWrites: many at once, of several extents each in files that take turns, are copied and carry checksums; where
// their place cannot be written they go the slow way.
func TestShortWrites(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		const n, size = 64, 12 << 10
		disk := &takesTurns{MemDisk: frontendtest.NewMemDisk(mib, 4096)}
		disk.openFiles(t)
		s := openServer(t, zeroCopy)
		f := openDirect(t, serve(t, s, t.Name(), disk).Path())
		p, q := alignedBytes(t, n*size), alignedBytes(t, n*size)
		for _, broken := range []bool{false, true} {
			disk.mu.Lock()
			disk.broken = broken
			disk.mu.Unlock()
			rand.Read(p)
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					if _, err := f.WriteAt(p[i*size:][:size], int64(i*size)); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if _, err := f.ReadAt(q, 0); err != nil || !bytes.Equal(p, q) {
				t.Errorf("broken %v: %v, or other bytes than written", broken, err)
			}
		}
		if st := s.Stats(); disk.writes != n || disk.sums != 3*n || st.Slow != n {
			t.Errorf("%d writes placed with %d checksums, %d went the slow way", disk.writes, disk.sums, st.Slow)
		}
	})
}
