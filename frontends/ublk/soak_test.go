package ublk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"glidefs-appliance/backend/gc"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/dir"
	"glidefs-appliance/backend/volume"

	"golang.org/x/sys/unix"
)

// soakTime is GLIDEFS_SOAK in seconds.
func soakTime() time.Duration {
	s := 5
	_, _ = fmt.Sscan(os.Getenv("GLIDEFS_SOAK"), &s)
	return time.Duration(s) * time.Second
}

// TestSoak: stamped blocks on several disks whose log and cache hold a fraction of them, so that segments are uploaded,
// evicted and recycled and reads are cold, while writers, readers, flushes and discards run. Every block read is the
// last one written there.
func TestSoak(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		const disks, size, writers = 2, 64 * mib, 3
		state := stateDir(t)
		h := tightEngine(t, state, 24<<20, 16<<20, volume.Tuning{UploadAge: 200 * time.Millisecond, BatchBytes: 2 << 20})
		st, err := dir.Open(filepath.Join(state, "store"), true) // one in memory would grow
		if err != nil {
			t.Fatal(err)
		}
		behind(h, st)
		s := openServer(t, zeroCopy)
		end := time.Now().Add(soakTime())
		var wg sync.WaitGroup
		before, expectFlat := descriptors(t), flat(t, soakTime())
		var vols []*volume.Volume
		for d := range disks {
			vols = append(vols, openVolume(t, h, fmt.Sprint("soak", d), size, 4096))
		}
		collectGarbage(t, st, vols)
		for d, v := range vols {
			path := serve(t, s, v.Name(), v).Path()
			for w := range writers {
				wg.Go(func() { soak(t, path, int64(w)*size/writers/4096*4096, size/writers/4096, uint64(d*writers+w+1), end) })
			}
		}
		wg.Wait()
		expectFlat()
		t.Logf("%+v; %+v; %d descriptors more than before", s.Stats(), h.Counters(), descriptors(t)-before)
		if n := s.Stats(); n.Slow > n.Inline/100 { // reads of zeros, when the kernel has something else to do
			t.Errorf("%d of %d requests failed on the ring", n.Slow, n.Inline)
		}
	})
}

// garbageAge is so short that an hour's garbage does not fill the disk.
const garbageAge = 2 * time.Minute

// collectGarbage keeps the store small, until the test ends.
func collectGarbage(t *testing.T, st store.Store, vols []*volume.Volume) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(cancel)
	wg.Go(func() {
		tick := time.NewTicker(garbageAge / 2)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				collectOnce(ctx, t, st, vols)
			}
		}
	})
}

// collectOnce asks the writers as `gc --grace` does: one that is long at a merge is not to lose what it has uploaded. As they
// are never quiet here, they are kept from beginning anything until they have been asked.
func collectOnce(ctx context.Context, t *testing.T, st store.Store, vols []*volume.Volume) {
	quiet := func() map[[16]byte]bool {
		for _, v := range vols {
			v.Pause(true)
			defer v.Pause(false)
		}
		return whenQuiet(ctx, vols)
	}
	var busy *gc.OpenError
	r, err := gc.Run(ctx, st, gc.Options{Grace: garbageAge, Quiet: quiet})
	switch {
	case ctx.Err() != nil:
	case errors.As(err, &busy), errors.Is(err, manifest.ErrLate): // as it must, where the guest is so slow
		t.Logf("the collector gave up: %v", err)
	case err != nil:
		t.Error(err)
	default:
		t.Logf("collected %d objects of %d", r.Deleted, r.Deleted+r.Live+r.Kept)
	}
}

// whenQuiet waits for each volume to be quiet once, for as long as the collector may, and returns the incarnations of those
// that were.
func whenQuiet(ctx context.Context, vols []*volume.Volume) map[[16]byte]bool {
	logs := map[[16]byte]bool{}
	for end := time.Now().Add(garbageAge / 6); ; time.Sleep(10 * time.Millisecond) {
		for _, v := range vols {
			if log, quiet := v.Quiet(); quiet {
				logs[log] = true
			}
		}
		if len(logs) == len(vols) || time.Now().After(end) || ctx.Err() != nil {
			return logs
		}
	}
}

// soak works on one part of a disk, until end: blocks of 4 KiB from base.
func soak(t *testing.T, path string, base int64, blocks int, seed uint64, end time.Time) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	mem, err := unix.Mmap(-1, 0, mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Munmap(mem)
	rng, stamps, version := rand.New(rand.NewPCG(seed, 1)), make([]uint64, blocks), uint64(0)
	for time.Now().Before(end) {
		n := 1 + rng.IntN(1<<rng.IntN(9))
		first := rng.IntN(blocks - n)
		p, off := mem[:n*4096], base+int64(first)*4096
		switch op := rng.IntN(100); {
		case op < 45:
			version++
			for i := range n {
				stamp(p[i*4096:][:4096], seed<<40|uint64(first+i), version)
				stamps[first+i] = version
			}
			_, err = f.WriteAt(p, off)
		case op < 93:
			if _, err = f.ReadAt(p, off); err == nil {
				err = compare(p, seed<<40|uint64(first), stamps[first:first+n])
			}
		case op < 98:
			err = f.Sync()
		default:
			clear(stamps[first : first+n])
			err = discardRange(f, off, int64(len(p)))
		}
		if err != nil {
			t.Errorf("%s at %d, %d blocks: %v", path, off, n, err)
			return
		}
	}
}

// stamp fills a block with what names it and its version; version 0 is zeros.
func stamp(p []byte, block, version uint64) {
	if version == 0 {
		clear(p)
		return
	}
	for i := 0; i < len(p); i += 16 {
		binary.LittleEndian.PutUint64(p[i:], block)
		binary.LittleEndian.PutUint64(p[i+8:], version)
	}
}

func compare(p []byte, block uint64, versions []uint64) error {
	var want [4096]byte
	for i, v := range versions {
		stamp(want[:], block+uint64(i), v)
		if got := p[i*4096:][:4096]; !bytes.Equal(got, want[:]) {
			return fmt.Errorf("block %d: %x, want version %d", i, got[:16], v)
		}
	}
	return nil
}

func discardRange(f *os.File, off, n int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
		if err != unix.EINTR {
			return err
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
