package bench

import (
	"context"
	"fmt"
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
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Unmount() })
	path, err := s.Add(v.Name(), v, false)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFIO compares the disk's FUSE file, upload paused, with the barest go-fuse file. Every run of a writing row covers
// the disk's size once at most, in recycled segments.
func TestFIO(t *testing.T) {
	size := choose[int64](32<<20, 1<<30)
	v := openDisk(t, host(t, forgetful{mem.New()}, 4*size+(1<<30), volume.Tuning{UploadAge: time.Hour, NoCompaction: true}), "fio", size)
	bare := bareFile(t, size)
	s, reference, err := barest.Mount(t.TempDir(), bare)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Unmount() })
	ours := serve(t, v)
	run := func(r frontendtest.Row, path string) func() float64 {
		return func() float64 {
			if path == ours {
				recycle(t, v)
			} else if err := bare.Sync(); err != nil {
				t.Fatal(err)
			}
			res, err := frontendtest.FIO{File: path, RW: r.RW, BS: r.BS, Depth: r.Depth, Size: size, Runtime: runtime(t),
				Extra: []string{"--time_based=0", fmt.Sprintf("--io_size=%d", size)}}.Run(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			return res.IOPS
		}
	}
	for _, r := range frontendtest.Rows {
		o, ref := turns(choose(1, 5), run(r, ours), run(r, reference))
		report(row{What: "fio " + r.Name, Unit: "IOPS", Ours: o, Ref: ref, RefName: "barest go-fuse", Ratio: o / ref, Must: 0.9, Acked: acked(r)})
	}
}

func acked(r frontendtest.Row) string {
	if r.RW == "write" || r.RW == "randwrite" {
		return "page cache"
	}
	return ""
}

// TestColdWrite: the 99th percentile of a 4 KiB write into a disk of which nothing is on this host, with a store that
// answers in 100 ms, against the same on a hot disk.
func TestColdWrite(t *testing.T) {
	size := choose[int64](64<<20, 4<<30)
	st := &slow{Store: mem.New()}
	h := host(t, st, 2<<30, volume.Tuning{UploadAge: time.Hour, NoCompaction: true})
	v := openDisk(t, h, "cold", size)
	fill(t, v)
	if err := v.Sync(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	elsewhere := host(t, st, 8<<30, volume.Tuning{UploadAge: time.Hour, NoCompaction: true})
	elsewhere.Owner.State[0] = 2
	cold := openDisk(t, elsewhere, "cold", 0)
	hot := openDisk(t, host(t, forgetful{mem.New()}, 8<<30, volume.Tuning{UploadAge: time.Hour, NoCompaction: true}), "hot", size)
	if full() {
		recycle(t, hot)
	}
	hot.Pause(true)
	st.delay.Store(int64(100 * time.Millisecond))
	coldPath, hotPath := serve(t, cold), serve(t, hot)
	p99 := func(path string) func() float64 {
		return func() float64 {
			res, err := frontendtest.FIO{File: path, RW: "randwrite", BS: 4096, Depth: 1, Size: size, Runtime: runtime(t)}.Run(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			return res.P99.Seconds()
		}
	}
	o, r := turns(choose(1, 5), p99(coldPath), p99(hotPath))
	report(row{What: "p99 of 4k random write, cold, store answers in 100 ms", Unit: "us", Ours: o * 1e6, Ref: r * 1e6, RefName: "hot disk", Ratio: o / r, Must: 1.5, AtMost: true, Acked: "page cache"})
}
