package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/volume"
	"glidefs-appliance/frontends/frontendtest"
)

// local is the tuning of rows that measure the local disk: nothing is uploaded unless the row asks for it.
var local = volume.Tuning{UploadAge: time.Hour, NoCompaction: true}

// bareFile is a file of the disk's size, in the page cache and synced.
func bareFile(t testing.TB, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "bare"))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(buf)) {
		_, err := f.WriteAt(buf, off)
		must(t, err)
	}
	must(t, f.Sync())
	return f
}

// TestHot4K: 4 KiB requests to a disk whose data is in the page cache. Each run covers the disk's size. Random places
// cost a file system much more than they cost a log, so the row in order is the hard one.
func TestHot4K(t *testing.T) {
	size := choose[int64](32<<20, 512<<20)
	v := openDisk(t, host(t, forgetful{mem.New()}, logFor(size), local), "hot", size)
	f := bareFile(t, size)
	ctx, rounds, count := context.Background(), choose(1, 7), int(size/4096)
	p, rng := make([]byte, 4096), rand.New(rand.NewPCG(1, 2))
	random := func(int) int64 { return rng.Int64N(size/4096) * 4096 }
	inOrder := func(i int) int64 { return int64(i) * 4096 }
	each := func(place func(i int) int64, fn func(off int64) error) float64 {
		began := time.Now()
		for i := range count {
			must(t, fn(place(i)))
		}
		return time.Since(began).Seconds() / float64(count)
	}
	warm(t, v)
	for _, c := range []struct {
		name  string
		place func(int) int64
	}{{"in order", inOrder}, {"random", random}} {
		s := turns(rounds, func() float64 {
			settle(t, v)
			return each(c.place, func(off int64) error { return v.WriteAt(ctx, p, off, false) })
		}, func() float64 {
			must(t, f.Sync())
			return each(c.place, func(off int64) error { _, err := f.WriteAt(p, off); return err })
		})
		report(row{What: "volume 4 KiB write, " + c.name, Unit: "us", sides: s.scaled(1e6), RefName: "bare pwrite", Must: 2, AtMost: true, Acked: "page cache"})
	}
	refill(t, v)
	s := turns(3*rounds, func() float64 {
		return each(random, func(off int64) error { return v.ReadAt(ctx, p, off) })
	}, func() float64 {
		return each(random, func(off int64) error { _, err := f.ReadAt(p, off); return err })
	})
	report(row{What: "volume 4 KiB read, random", Unit: "us", sides: s.scaled(1e6), RefName: "bare pread", Must: 1.5, AtMost: true})
}

// TestSynced compares writes that are flushed one by one with pwrite and fdatasync of one file that was zeroed before.
// The rows through FUSE are fio with an fsync after each write; they have no bound.
func TestSynced(t *testing.T) {
	size := choose[int64](64<<20, 512<<20)
	v := openDisk(t, host(t, forgetful{mem.New()}, logFor(size), local), "synced", size)
	path := serve(t, v)
	f := bareFile(t, size)
	warm(t, v)
	for _, c := range []struct {
		n    int
		must float64
	}{{1, 0.5}, {16, 1.3}, {64, 3}} {
		measureSynced(t, v, f, c.n, c.must)
		measureSyncedFUSE(t, v, f, path, c.n)
	}
}

// syncedSpan keeps a run, which nothing is uploaded in, shorter than a fast disk needs to fill the log.
func syncedSpan(t testing.TB) time.Duration { return min(span(t), 2*time.Second) }

// bareSynced is what both rows are compared with.
func bareSynced(t testing.TB, f *os.File, n int, size int64) func() float64 {
	return func() float64 {
		return rate(t, n, syncedSpan(t), func(p []byte, off int64) error {
			if _, err := f.WriteAt(p, off%size); err != nil {
				return err
			}
			return unix.Fdatasync(int(f.Fd()))
		})
	}
}

func measureSynced(t testing.TB, v *volume.Volume, f *os.File, n int, must float64) {
	ours := func() float64 {
		settle(t, v)
		return rate(t, n, syncedSpan(t), func(p []byte, off int64) error {
			return v.WriteAt(context.Background(), p, off%v.Size(), true)
		})
	}
	s := turns(choose(1, 5), ours, bareSynced(t, f, n, v.Size()))
	report(row{What: fmt.Sprintf("synced 4 KiB writes, %d at a time", n), Unit: "1/s", sides: s,
		RefName: "pwrite + fdatasync", Must: must, Acked: "disk (fdatasync)"})
}

func measureSyncedFUSE(t testing.TB, v *volume.Volume, f *os.File, path string, n int) {
	ours := func() float64 {
		settle(t, v)
		res, err := frontendtest.FIO{File: path, RW: "randwrite", BS: 4096, Depth: 1, Size: v.Size(), Runtime: syncedSpan(t),
			Extra: []string{"--fsync=1", "--thread", fmt.Sprintf("--numjobs=%d", n)}}.Run(context.Background())
		must(t, err)
		return res.IOPS
	}
	s := turns(choose(1, 3), ours, bareSynced(t, f, n, v.Size()))
	report(row{What: fmt.Sprintf("... through FUSE, %d at a time", n), Unit: "1/s", sides: s,
		RefName: "pwrite + fdatasync", Acked: "disk (fdatasync)"})
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
