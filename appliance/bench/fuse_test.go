package bench

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/volume"
	"glidefs-appliance/frontends/frontendtest"
	"glidefs-appliance/frontends/fuse"
	"glidefs-appliance/frontends/fuse/barest"
)

func serve(t testing.TB, v *volume.Volume) string {
	t.Helper()
	s, err := fuse.Mount(t.TempDir(), fuse.Options{})
	must(t, err)
	t.Cleanup(func() { _ = s.Unmount() })
	path, err := s.Add(v.Name(), v, false)
	must(t, err)
	return path
}

func writes(r frontendtest.Row) bool { return r.RW == "write" || r.RW == "randwrite" }

func acked(r frontendtest.Row) string {
	if writes(r) {
		return "page cache"
	}
	return ""
}

// TestFIO compares the disk's FUSE file, upload paused, with the barest go-fuse file. A run covers the disk's size once
// at most, writes go to recycled segments, and both sides are synced before.
func TestFIO(t *testing.T) {
	size := choose[int64](32<<20, 1<<30)
	v := openDisk(t, host(t, forgetful{mem.New()}, logFor(size), local), "fio", size)
	bare := bareFile(t, size)
	s, reference, err := barest.Mount(t.TempDir(), bare)
	must(t, err)
	t.Cleanup(func() { _ = s.Unmount() })
	ours := serve(t, v)
	warm(t, v)
	for _, r := range frontendtest.Rows {
		t.Run(r.Name, func(t *testing.T) { compare(t, r, v, ours, bare, reference) })
	}
}

// compare runs a row on the disk at path ours and on the bare file at path reference, in turns.
func compare(t *testing.T, r frontendtest.Row, v *volume.Volume, ours string, bare *os.File, reference string) {
	if !writes(r) {
		refill(t, v)
	}
	size := v.Size()
	run := func(path string, prepare func()) func() float64 {
		return func() float64 {
			if writes(r) {
				prepare()
			}
			return iops(t, r, path, size, "--time_based=0", fmt.Sprintf("--io_size=%d", size))
		}
	}
	const rounds = 25 // of which each is off by a tenth or two, one way or the other
	s := turns(choose(1, rounds), run(ours, func() { settle(t, v) }), run(reference, func() { must(t, bare.Sync()) }))
	report(row{What: "fio " + r.Name, Unit: "IOPS", sides: s, RefName: "barest go-fuse", Must: 0.9, Acked: acked(r)})
}

func iops(t testing.TB, r frontendtest.Row, path string, size int64, extra ...string) float64 {
	t.Helper()
	res, err := frontendtest.FIO{File: path, RW: r.RW, BS: r.BS, Depth: r.Depth, Size: size, Runtime: span(t), Extra: extra}.Run(context.Background())
	must(t, err)
	return res.IOPS
}

// TestColdWrite: the 99th percentile of a 4 KiB write into a disk of which nothing is on this host, against the same on
// one that is. Both logs are recycled and both disks upload to a store that answers in 100 ms.
func TestColdWrite(t *testing.T) {
	size := choose[int64](64<<20, 4<<30)
	tuning := volume.Tuning{NoCompaction: true}
	st, log := &slow{Store: forgetful{mem.New()}}, int64(2<<30)
	first := openDisk(t, host(t, st, log, tuning), "cold", size)
	fill(t, first)
	must(t, first.Sync(context.Background(), nil))
	must(t, first.Close(context.Background()))

	elsewhere := host(t, st, log, tuning)
	elsewhere.Owner.State[0] = 2
	cold := openDisk(t, elsewhere, "cold", 0)
	hot := openDisk(t, host(t, st, size+log, tuning), "hot", size)
	fill(t, hot)
	must(t, hot.Sync(context.Background(), nil))
	churn(t, cold)
	churn(t, hot)
	st.delay.Store(int64(100 * time.Millisecond))
	coldPath, hotPath := serve(t, cold), serve(t, hot)
	p99 := func(path string, v *volume.Volume) func() float64 {
		return func() float64 {
			must(t, v.Sync(context.Background(), nil))
			res, err := frontendtest.FIO{File: path, RW: "randwrite", BS: 4096, Depth: 1, Size: size, Runtime: span(t)}.Run(context.Background())
			must(t, err)
			return res.P99.Seconds()
		}
	}
	s := turns(choose(1, 5), p99(coldPath, cold), p99(hotPath, hot))
	report(row{What: "p99 of 4k random write, cold, store answers in 100 ms", Unit: "us", sides: s.scaled(1e6),
		RefName: "hot disk, same store", Must: 1.5, AtMost: true, Acked: "page cache"})
}

// churn writes the beginning of the disk again and again until the log recycles, so that the rest stays as cold, or as
// hot, as it is.
func churn(t testing.TB, v *volume.Volume) {
	t.Helper()
	buf := make([]byte, 1<<20)
	for before := int64(-1); full() && v.Status().LogBytes > before; {
		before = v.Status().LogBytes
		for range 512 {
			must(t, v.WriteAt(context.Background(), buf, 0, false))
		}
		must(t, v.Sync(context.Background(), nil))
	}
}
