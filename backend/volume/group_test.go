package volume

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"glidefs-appliance/backend/vfs"
)

// heldSync is a disk whose sync of the log stands still, and writes that wait for the one after it.
type heldSync struct {
	v      *Volume
	fs     *vfs.Fault
	resume chan struct{}
	first  error   // of the write that is being synced
	errs   []error // of those that wait
	ended  int
	mu     sync.Mutex
	wg     sync.WaitGroup
}

func block(i int) []byte { return bytes.Repeat([]byte{byte(i + 1)}, 4096) }

// newHeldSync must run in a bubble.
func newHeldSync(t *testing.T, waiting int) *heldSync {
	h := &heldSync{fs: vfs.NewFault(vfs.NewCrash()), resume: make(chan struct{}), errs: make([]error, waiting)}
	r := newRig(h.fs, "/state")
	r.tuning.SegmentBytes, r.log = 1<<20, 16<<20 // one is enough
	h.v = r.open(t, "a", OpenOptions{Create: 1 << 20})
	t.Cleanup(func() { r.kill(h.v, false) })
	if err := h.v.WriteAt(t.Context(), block(0), 0, true); err != nil { // opens a segment, and has the next ones made
		t.Fatal(err)
	}
	synctest.Wait()
	var once sync.Once
	h.fs.Before(func(op vfs.Op, name string) error {
		if op == vfs.OpSync && strings.HasSuffix(name, ".seg") {
			once.Do(func() { <-h.resume })
		}
		return nil
	})
	h.wg.Go(func() { h.first = h.v.WriteAt(t.Context(), block(waiting), int64(waiting)*4096, true) })
	synctest.Wait()
	for i := range waiting {
		h.wg.Go(func() {
			err := h.v.WriteAt(t.Context(), block(i), int64(i)*4096, true)
			h.mu.Lock()
			defer h.mu.Unlock()
			h.errs[i] = err
			h.ended++
		})
	}
	synctest.Wait()
	return h
}

// onLog counts what is done to segments from now on, and lets fail what fn says.
func (h *heldSync) onLog(fn func(vfs.Op) error) map[vfs.Op]int {
	n := map[vfs.Op]int{}
	var mu sync.Mutex
	h.fs.Before(func(op vfs.Op, name string) error {
		if !strings.HasSuffix(name, ".seg") {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		n[op]++
		return fn(op)
	})
	return n
}

// TestSyncedWritesShare: synced writes that come during a sync cost one write of data, one of records and one sync.
func TestSyncedWritesShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeldSync(t, 8)
		n := h.onLog(func(vfs.Op) error { return nil })
		close(h.resume)
		h.wg.Wait()
		synctest.Wait()
		if err := errors.Join(append(h.errs, h.first)...); err != nil {
			t.Fatal(err)
		}
		if n[vfs.OpWrite] != 2 || n[vfs.OpSync] != 1 {
			t.Errorf("%d writes and %d syncs for 8 synced writes", n[vfs.OpWrite], n[vfs.OpSync])
		}
		got := make([]byte, 4096)
		for i := range 9 {
			if err := h.v.ReadAt(t.Context(), got, int64(i)*4096); err != nil || !bytes.Equal(got, block(i)) {
				t.Errorf("block %d: %x.., %v", i, got[:4], err)
			}
		}
	})
}

// TestSyncedWritesFailTogether: what the one write or sync covered is unknown, so all of them fail.
func TestSyncedWritesFailTogether(t *testing.T) {
	for name, op := range map[string]vfs.Op{"write": vfs.OpWrite, "sync": vfs.OpSync} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHeldSync(t, 8)
				h.onLog(func(o vfs.Op) error {
					if o == op {
						return syscall.EIO
					}
					return nil
				})
				close(h.resume)
				h.wg.Wait()
				if h.first != nil {
					t.Errorf("the one before: %v", h.first)
				}
				for _, err := range h.errs {
					if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
						t.Errorf("%v", err)
					}
				}
			})
		})
	}
}

// TestSyncedWritesEndAtKill: they do not wait for a sync that hangs, unless it is theirs.
func TestSyncedWritesEndAtKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeldSync(t, 8)
		h.v.Kill(ErrClosed)
		synctest.Wait()
		if h.ended != 8 || !errors.Is(errors.Join(h.errs...), ErrClosed) {
			t.Errorf("%d ended: %v", h.ended, h.errs)
		}
		close(h.resume)
		h.wg.Wait()
	})
}

// TestSyncedWritesWaitForRoom: the flush that would write them must not wait for room, so they do it themselves; and all
// is there after a power cut.
func TestSyncedWritesWaitForRoom(t *testing.T) {
	r := newDiskRig(t)
	const writers, each, span = 32, 24, 64 << 10
	v := r.open(t, "a", OpenOptions{Create: writers * span, Sector: 512})
	want := make([]byte, writers*span)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(7, uint64(w)))
			mine := want[w*span : (w+1)*span]
			for i := range each {
				n := 512 * (1 + rng.IntN(32))
				at := 512 * rng.IntN((span-n)/512)
				for j := range n {
					mine[at+j] = byte(i ^ j>>9)
				}
				if err := v.WriteAt(t.Context(), mine[at:at+n], int64(w*span+at), true); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	r.kill(v, true)
	v = r.open(t, "a", OpenOptions{})
	got := make([]byte, len(want))
	if err := v.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("something else is there: %v", err)
	}
	mustSync(t, v)
	r.close(t, v)
}
