package ublk

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"glidefs-appliance/backend/volume"

	"golang.org/x/sys/unix"
)

// flushLimit is what a FLUSH may take here, whatever the log and the uploads do.
const flushLimit = 30 * time.Second

// TestFlushWatchdog: FLUSH and FUA are answered while the log is full, segments are sealed, evicted and recycled, batches
// are cut, uploaded and merged. A writer waits for room in the log; nobody who asks for a FLUSH waits for one who does.
func TestFlushWatchdog(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		const disks, writers, flushers = 2, 2, 2
		h := tightEngine(t, stateDir(t), 4<<20, 4<<20, volume.Tuning{
			UploadAge: 20 * time.Millisecond, BatchBytes: 512 << 10, SegmentBytes: 256 << 10, TailPacks: 4, LevelBytes: 4 << 20,
		})
		s, dog := openServer(t, zeroCopy), newWatchdog(flushLimit)
		var writing, all sync.WaitGroup
		var written, flushed atomic.Int64
		var ended atomic.Bool
		for d := range disks {
			path := serve(t, s, fmt.Sprint("disk", d), openVolume(t, h, fmt.Sprint("disk", d), 32<<20, 4096)).Path()
			for w := range writers {
				fua := w == 0
				writing.Go(func() { written.Add(writeMuch(t, dog, path, uint64(d), int64(w), fua)) })
			}
			for range flushers {
				all.Go(func() { flushed.Add(flushUntil(t, dog, path, &ended)) })
			}
		}
		done := make(chan struct{})
		go func() {
			writing.Wait()
			ended.Store(true)
			all.Wait()
			close(done)
		}()
		dog.wait(t, done)
		t.Logf("%d MiB written, %d flushes, %d batches, %d merges", written.Load()>>20, flushed.Load(), h.Counters().Batches, h.Counters().Merges)
		if n := h.Counters().Batches; flushed.Load() < 20 || n < 20 {
			t.Errorf("%d flushes met %d batches", flushed.Load(), n)
		}
	})
}

// writeMuch writes several times what the log holds to one half of a disk; with fua each tenth request asks for a sync.
func writeMuch(t *testing.T, dog *watchdog, path string, disk uint64, half int64, fua bool) (n int64) {
	plain, sync, p, err := openBoth(path)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer plain.Close()
	defer sync.Close()
	defer munmap(p)
	const blocks = 16 << 20 / 4096
	a, rng := newArea(plain, disk, half*blocks, blocks), rand.New(rand.NewPCG(disk, uint64(half)))
	for version := uint64(1); n < 12<<20; version++ {
		block, count := a.run(rng, 64)
		if a.f = plain; fua && version%10 == 0 {
			a.f = sync
		}
		if err := dog.guard("write", func() error { return a.write(p[:count*4096], block, version) }); err != nil {
			t.Error(err)
			return n
		}
		n += int64(count) * 4096
	}
	for block := 0; block < blocks; block += 64 {
		if err := a.read(p[:64*4096], block); err != nil {
			t.Error(err)
			return n
		}
	}
	return n
}

// openBoth opens a device past the page cache, without and with FUA for every write, and maps 256 KiB.
func openBoth(path string) (plain, sync *os.File, p []byte, err error) {
	if plain, err = os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0); err != nil {
		return nil, nil, nil, err
	}
	if sync, err = os.OpenFile(path, os.O_RDWR|unix.O_DIRECT|unix.O_DSYNC, 0); err != nil {
		return nil, nil, nil, err
	}
	p, err = anonymous(64 * 4096)
	return plain, sync, p, err
}

func munmap(p []byte) { _ = unix.Munmap(p) }

func flushUntil(t *testing.T, dog *watchdog, path string, ended *atomic.Bool) (n int64) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer f.Close()
	for ; !ended.Load(); n++ {
		if err := dog.guard("flush", f.Sync); err != nil {
			t.Error(err)
			return n
		}
	}
	return n
}
