package volume

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"glidefs-appliance/backend/vfs"
	"glidefs-appliance/frontends"

	"golang.org/x/sys/unix"
)

// moveThere does what a frontend does between reserve and commit. direct: through the descriptors, which may want
// aligned memory; otherwise through the file, which also a simulated disk has.
func moveThere(t *testing.T, p []byte, place *frontends.Placement, direct, sums bool) {
	t.Helper()
	for i, e := range place.Extents {
		var err error
		if direct {
			_, err = unix.Pwrite(e.Direct, p[:e.Len], e.Off)
		} else {
			err = place.Own.(*op).spans[i].Seg.WriteAt(p[:e.Len], e.Off)
		}
		if err != nil {
			t.Fatal(err)
		}
		if sums {
			place.Sums = append(place.Sums, crc32.Checksum(p[:e.Len], castagnoli))
		}
		p = p[e.Len:]
	}
	if len(p) > 0 {
		t.Fatalf("room for %d bytes less than asked for", len(p))
	}
}

func alignedBytes(n int) []byte {
	b := make([]byte, n+4096)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & 4095
	return b[skip : skip+n]
}

// TestPlacedWrites mixes batches of placed writes with plain ones and discards, and compares with a byte array.
func TestPlacedWrites(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			const size = 1 << 20
			r := newDiskRig(t)
			r.log = 8 << 20
			v := r.open(t, "d", OpenOptions{Create: size, Sector: sector})
			ctx, rng, model := context.Background(), rand.New(rand.NewPCG(1, uint64(sector))), make([]byte, size)
			places := make([]frontends.Placement, 4)
			for range 300 {
				var batch []frontends.Write
				for i := range 1 + rng.IntN(len(places)) {
					n := (1 + rng.IntN(24<<10/sector)) * sector
					off := rng.IntN((size-n)/sector+1) * sector
					if !v.TryReserve(int64(off), int64(n), &places[i]) {
						if err := v.Reserve(ctx, int64(off), int64(n), &places[i]); err != nil {
							t.Fatal(err)
						}
					}
					p := alignedBytes(n)
					for j := range p {
						p[j] = byte(rng.Uint32())
					}
					moveThere(t, p, &places[i], rng.IntN(4) > 0, rng.IntN(2) == 0)
					if rng.IntN(8) == 0 {
						v.Abandon(&places[i])
						break
					}
					batch = append(batch, frontends.Write{Off: int64(off), Place: &places[i]})
					copy(model[off:], p)
				}
				if len(batch) > 0 {
					if err := v.Commit(batch); err != nil {
						t.Fatal(err)
					}
				}
				if off := rng.IntN(size/sector/2) * sector; rng.IntN(10) == 0 {
					if err := v.Discard(ctx, int64(off), int64(4*sector)); err != nil {
						t.Fatal(err)
					}
					clear(model[off : off+4*sector])
				}
			}
			same := func(when string) {
				got := make([]byte, size)
				if err := v.ReadAt(ctx, got, 0); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, model) {
					t.Fatalf("%s: other bytes than written", when)
				}
			}
			same("at once")
			mustSync(t, v)
			r.kill(v, false)
			v = r.open(t, "d", OpenOptions{})
			same("after a kill")
			r.close(t, v)
		})
	}
}

// TestPlacedWriteNeedsMark: what nobody has a checksum of survives a power cut once it was flushed.
func TestPlacedWriteNeedsMark(t *testing.T) {
	fs := vfs.NewCrash()
	r := newRig(fs, "/state")
	v := r.open(t, "d", OpenOptions{Create: 1 << 20})
	p := bytes.Repeat([]byte("placed!!"), 512)
	var place frontends.Placement
	if err := v.Reserve(context.Background(), 8192, 4096, &place); err != nil {
		t.Fatal(err)
	}
	moveThere(t, p, &place, false, false)
	if err := v.Commit([]frontends.Write{{Off: 8192, Place: &place}}); err != nil {
		t.Fatal(err)
	}
	if err := v.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	v.Kill(ErrClosed)
	r.fs, r.h, r.boot = fs.CutAt(fs.Ops(), rand.New(rand.NewPCG(1, 2))), nil, "boot2"
	v = r.open(t, "d", OpenOptions{})
	defer v.Kill(ErrClosed)
	got := make([]byte, 4096)
	if err := v.ReadAt(context.Background(), got, 8192); err != nil || !bytes.Equal(got, p) {
		t.Fatalf("after a power cut: %v, %.16q", err, got)
	}
}

func TestPlaceRefusals(t *testing.T) {
	r := newDiskRig(t)
	v := r.open(t, "d", OpenOptions{Create: 1 << 20})
	var place frontends.Placement
	for _, x := range [][2]int64{{0, 0}, {1, 4096}, {0, 100}, {1 << 20, 4096}, {0, 1 << 20}} {
		if v.TryReserve(x[0], x[1], &place) {
			t.Errorf("[%d, +%d) got room", x[0], x[1])
		}
		if err := v.Reserve(context.Background(), x[0], x[1], &place); err == nil {
			t.Errorf("[%d, +%d) got room after waiting", x[0], x[1])
		}
	}
	if err := v.Reserve(context.Background(), 0, 4096, &place); err != nil {
		t.Fatal(err)
	}
	r.kill(v, false)
	if err := v.Commit([]frontends.Write{{Place: &place}}); err == nil {
		t.Error("a write was committed to a dead disk")
	}
}

// TestReserveWaits: a full log lets writes wait, and lets them go when their context ends.
func TestReserveWaits(t *testing.T) {
	r := newDiskRig(t)
	v := r.open(t, "d", OpenOptions{Create: 4 << 20})
	defer v.Kill(ErrClosed)
	v.Pause(true)
	var places []*frontends.Placement
	for {
		p := new(frontends.Placement)
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		err := v.Reserve(ctx, 0, 16<<10, p)
		cancel()
		if err != nil {
			break
		}
		if places = append(places, p); len(places) > 1000 {
			t.Fatal("the log never fills")
		}
	}
	for _, p := range places {
		v.Abandon(p)
	}
	if err := v.WriteAt(context.Background(), make([]byte, 4096), 0, false); err != nil {
		t.Errorf("after all gave their room back: %v", err)
	}
}

// TestShortPlacesAreCached: short writes are not offered a way past the page cache, and leave the segment as it is.
func TestShortPlacesAreCached(t *testing.T) {
	r := newDiskRig(t)
	r.log = 8 << 20
	v := r.open(t, "d", OpenOptions{Create: 1 << 20, Sector: 4096})
	for n, direct := range map[int64]bool{4096: false, frontends.ShortWrite: false, frontends.ShortWrite + 4096: true} {
		var place frontends.Placement
		if err := v.Reserve(context.Background(), 0, n, &place); err != nil {
			t.Fatal(err)
		}
		for _, e := range place.Extents {
			if (e.Direct != e.FD) != direct {
				t.Errorf("%d bytes: offered a way past the page cache: %v, want %v", n, !direct, direct)
			}
		}
		v.Abandon(&place)
	}
}

// TestPlacesAreNotReadAhead: a segment that was given to a frontend is read no further than asked, so that the page cache
// keeps nothing of what a direct write is on its way to.
func TestPlacesAreNotReadAhead(t *testing.T) {
	r := newDiskRig(t)
	r.log = 8 << 20
	v := r.open(t, "d", OpenOptions{Create: 1 << 20, Sector: 4096})
	var place frontends.Placement
	if err := v.Reserve(context.Background(), 0, frontends.ShortWrite+4096, &place); err != nil {
		t.Fatal(err)
	}
	defer v.Abandon(&place)
	e := place.Extents[0]
	if e.Direct == e.FD {
		t.Fatal("this file system has no direct I/O")
	}
	if err := unix.Fdatasync(e.FD); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(e.FD, 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Pread(e.FD, make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	var st unix.Cachestat_t
	if err := unix.Cachestat(uint(e.FD), &unix.CachestatRange{}, &st, 0); err != nil || st.Cache != 1 {
		t.Errorf("%d pages are in the page cache, want the one that was read: %v", st.Cache, err)
	}
}
