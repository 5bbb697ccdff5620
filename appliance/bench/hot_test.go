package bench

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/volume"
)

// bareFile is a written, synced file of the disk's size.
func bareFile(t testing.TB, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "bare"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(buf)) {
		if _, err := f.WriteAt(buf, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestHot4K(t *testing.T) {
	size := choose[int64](32<<20, 512<<20)
	v := openDisk(t, host(t, forgetful{mem.New()}, 4*size+(1<<30), volume.Tuning{UploadAge: time.Hour, NoCompaction: true}), "hot", size)
	f := bareFile(t, size)
	p, rng := make([]byte, 4096), rand.New(rand.NewPCG(1, 2))
	off := func() int64 { return rng.Int64N(size/4096) * 4096 }
	ctx, rounds, count := context.Background(), choose(1, 7), int(size/4096)
	each := func(fn func() error) func() float64 {
		return func() float64 {
			began := time.Now()
			for range count {
				if err := fn(); err != nil {
					t.Fatal(err)
				}
			}
			return time.Since(began).Seconds() / float64(count)
		}
	}
	recycle(t, v)
	write := func() float64 {
		s := each(func() error { return v.WriteAt(ctx, p, off(), false) })()
		recycle(t, v)
		return s
	}
	bareWrite := func() float64 {
		s := each(func() error { _, err := f.WriteAt(p, off()); return err })()
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		return s
	}
	o, r := turns(rounds, write, bareWrite)
	report(row{What: "volume 4 KiB write", Unit: "us", Ours: o * 1e6, Ref: r * 1e6, RefName: "bare pwrite", Ratio: o / r, Must: 2, AtMost: true, Acked: "page cache"})
	o, r = turns(rounds, each(func() error { return v.ReadAt(ctx, p, off()) }), each(func() error { _, err := f.ReadAt(p, off()); return err }))
	report(row{What: "volume 4 KiB read", Unit: "us", Ours: o * 1e6, Ref: r * 1e6, RefName: "bare pread", Ratio: o / r, Must: 1.5, AtMost: true})
}

// TestSynced compares writes that are flushed one by one with pwrite and fdatasync of one file that was zeroed before.
func TestSynced(t *testing.T) {
	size := int64(64 << 20)
	v := openDisk(t, host(t, forgetful{mem.New()}, 1<<30, volume.Tuning{UploadAge: time.Hour, NoCompaction: true}), "synced", size)
	f := bareFile(t, size)
	ctx, d, rounds := context.Background(), runtime(t)/2, choose(1, 5)
	for _, c := range []struct {
		n    int
		must float64
	}{{1, 0.5}, {16, 1.3}, {64, 3}} {
		ours := func() float64 {
			recycle(t, v)
			return rate(t, c.n, d, func(p []byte, off int64) error { return v.WriteAt(ctx, p, off%size, true) })
		}
		ref := func() float64 {
			return rate(t, c.n, d, func(p []byte, off int64) error {
				if _, err := f.WriteAt(p, off%size); err != nil {
					return err
				}
				return unix.Fdatasync(int(f.Fd()))
			})
		}
		o, r := turns(rounds, ours, ref)
		report(row{What: "synced 4 KiB writes, " + map[int]string{1: "1", 16: "16", 64: "64"}[c.n] + " goroutines", Unit: "1/s", Ours: o, Ref: r,
			RefName: "pwrite + fdatasync", Ratio: o / r, Must: c.must, Acked: "disk (fdatasync)"})
	}
}

// rate is calls a second of n goroutines.
func rate(t testing.TB, n int, d time.Duration, fn func(p []byte, off int64) error) float64 {
	t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	total, began := 0, time.Now()
	for g := range n {
		wg.Go(func() {
			p, rng, calls := make([]byte, 4096), rand.New(rand.NewPCG(uint64(g), 3)), 0
			for time.Since(began) < d {
				if err := fn(p, rng.Int64N(1<<40)&^4095); err != nil {
					t.Error(err)
					return
				}
				calls++
			}
			mu.Lock()
			total += calls
			mu.Unlock()
		})
	}
	wg.Wait()
	return float64(total) / time.Since(began).Seconds()
}
