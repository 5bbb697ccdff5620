package ublk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/volume"
	"glidefs-appliance/frontends"

	"golang.org/x/sys/unix"
)

// behind puts st between an engine and its store. Before the first disk is opened.
func behind(h *volume.Host, st store.Store) {
	h.Store, h.Pages = st, manifest.NewPages(st, 256)
}

// anonymous is memory for O_DIRECT, for goroutines: they free it themselves.
func anonymous(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
}

// area is a run of 4 KiB blocks of a block device. Every block carries its number and a version that only grows. One
// goroutine at a time writes a block; any may read.
type area struct {
	f           *os.File // O_DIRECT
	first       int64    // block
	id          uint64   // of the disk, in the stamps
	done, begun []atomic.Uint64
}

func newArea(f *os.File, id uint64, first int64, blocks int) *area {
	return &area{f: f, first: first, id: id << 40, done: make([]atomic.Uint64, blocks), begun: make([]atomic.Uint64, blocks)}
}

func (a *area) off(block int) int64 { return (a.first + int64(block)) * 4096 }

func (a *area) name(block int) uint64 { return a.id | uint64(a.first) + uint64(block) }

// write gives the blocks that fill p a version, in one request.
func (a *area) write(p []byte, block int, version uint64) error {
	n := len(p) / 4096
	for i := range n {
		a.begun[block+i].Store(version)
		stamp(p[i*4096:][:4096], a.name(block+i), version)
	}
	if _, err := a.f.WriteAt(p, a.off(block)); err != nil {
		return fmt.Errorf("write block %d: %w", block, err)
	}
	for i := range n {
		a.done[block+i].Store(version)
	}
	return nil
}

// read fills p with blocks and checks each: whole, of its own place, and of a version between what had been written
// before and what was being written after.
func (a *area) read(p []byte, block int) error {
	n := len(p) / 4096
	least := make([]uint64, n)
	for i := range n {
		least[i] = a.done[block+i].Load()
	}
	if _, err := a.f.ReadAt(p, a.off(block)); err != nil {
		return fmt.Errorf("read block %d: %w", block, err)
	}
	for i := range n {
		if err := a.check(p[i*4096:][:4096], block+i, least[i]); err != nil {
			return err
		}
	}
	return nil
}

func (a *area) check(p []byte, block int, least uint64) error {
	var want [4096]byte
	version, most := binary.LittleEndian.Uint64(p[8:]), a.begun[block].Load()
	stamp(want[:], a.name(block), version)
	if version < least || version > most || !bytes.Equal(p, want[:]) {
		return fmt.Errorf("block %d (stamp %#x) holds %x.., must be version %d to %d", block, a.name(block), p[:16], least, most)
	}
	return nil
}

// run of blocks, at most most of them.
func (a *area) run(rng *rand.Rand, most int) (block, n int) {
	n = 1 + rng.IntN(most)
	return rng.IntN(len(a.done) - n + 1), n
}

// inLog tells whether any byte of a block lies in a segment of the write log.
func inLog(d frontends.Mapper, off int64) bool {
	var plan frontends.Plan
	if !d.MapRead(off, 4096, &plan) {
		return false
	}
	defer plan.Release()
	for _, e := range plan.Extents {
		if name, _ := os.Readlink(fmt.Sprint("/proc/self/fd/", e.FD)); strings.Contains(name, "/logs/") {
			return true
		}
	}
	return false
}

// awaitThat polls a condition that becomes true unless something is broken.
func awaitThat(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s\n%s", what, stacks())
		}
	}
}

func stacks() []byte {
	buf := make([]byte, 4<<20)
	return buf[:runtime.Stack(buf, true)]
}

// watchdog ends a test whose operation is not answered.
type watchdog struct {
	limit time.Duration
	stuck chan string
}

func newWatchdog(limit time.Duration) *watchdog {
	return &watchdog{limit: limit, stuck: make(chan string, 1)}
}

func (w *watchdog) guard(what string, op func() error) error {
	late := time.AfterFunc(w.limit, func() {
		select {
		case w.stuck <- fmt.Sprintf("%s: no answer for %v\n%s", what, w.limit, stacks()):
		default:
		}
	})
	defer late.Stop()
	return op()
}

// wait until done is closed, or something is stuck.
func (w *watchdog) wait(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case what := <-w.stuck:
		t.Fatal(what)
	}
}
