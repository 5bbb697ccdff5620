package volume

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/storetest"
	"glidefs-appliance/backend/vfs"
)

// filled is a disk of 4 MiB, all of it in the store, its end in the log too, its first 256 KiB in the clean cache.
func filled(t *testing.T) (*rig, *storetest.Fault, *disk) {
	r := newRig(vfs.NewCrash(), "/state")
	f := faulty(r)
	d := &disk{witness: newWitness("a", 4096, make([]byte, 4<<20))}
	d.v = r.open(t, "a", OpenOptions{Create: int64(len(d.now))})
	d.stamp(d.now, 0, rand.New(rand.NewPCG(1, 1)))
	if err := d.v.WriteAt(t.Context(), d.now, 0, false); err != nil {
		t.Fatal(err)
	}
	mustSync(t, d.v)
	synctest.Wait() // for compaction, which would give the frames other names
	readAt(t, d, 0, 256<<10, 0)
	return r, f, d
}

// readAt reads right data in exactly that time.
func readAt(t *testing.T, d *disk, off, n int64, took time.Duration) {
	t.Helper()
	began, p := time.Now(), make([]byte, n)
	if err := d.v.ReadAt(t.Context(), p, off); err != nil || firstDiff(p, d.now[off:]) >= 0 {
		t.Errorf("read %d+%d: %v, wrong from byte %d", off, n, err, firstDiff(p, d.now[off:]))
	}
	if e := time.Since(began); e != took {
		t.Errorf("read %d+%d took %s, not %s", off, n, e, took)
	}
}

// TestOutage takes the store away for an hour (P1, P9): writes go on until the log is full, then they wait; what is local
// can be read; a cold read ends in an error in time; FLUSH and Status return. When the store is back every write ends.
func TestOutage(t *testing.T) {
	for name, get := range map[string]storetest.Action{"refuses": storetest.Unavailable(), "hangs": storetest.Hang()} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testOutage(t, get) })
		})
	}
}

func testOutage(t *testing.T, get storetest.Action) {
	r, f, d := filled(t)
	defer func() { r.kill(d.v, false) }()
	f.Always(storetest.On(store.OpGet, ""), get)
	f.Always(storetest.Any(), storetest.Unavailable())
	var writers sync.WaitGroup
	began := time.Now()
	for i := range 32 { // 1 MiB in all; the log holds a third of that
		p := d.now[1<<20+i*32<<10:][:32<<10]
		d.stamp(p, int64(i), rand.New(rand.NewPCG(2, uint64(i))))
		writers.Go(func() {
			if err := d.v.WriteAt(t.Context(), p, int64(1<<20+i*32<<10), false); err != nil {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	synctest.Wait()
	s := d.v.Status()
	if s.State != "log full" || s.Waiting == 0 || s.Waiting == 32 || s.Reason == "" {
		t.Fatalf("with the log full: %+v", s)
	}
	if e := time.Since(began); e != 0 {
		t.Errorf("%d writes took %s although there was room", 32-s.Waiting, e)
	}
	readAt(t, d, 0, 256<<10, 0)
	if err := d.v.Flush(t.Context()); err != nil || time.Since(began) != 0 {
		t.Errorf("flush took %s: %v", time.Since(began), err)
	}
	err := d.v.ReadAt(t.Context(), make([]byte, 4096), 512<<10)
	if e := time.Since(began); err == nil || !unreadable(err) || e > r.tuning.ReadTimeout {
		t.Errorf("a cold read took %s: %v", e, err)
	}
	time.Sleep(time.Hour)
	if now := d.v.Status(); now.State != s.State || now.Waiting != s.Waiting {
		t.Errorf("an hour later: %+v", now)
	}
	f.Clear()
	writers.Wait()
	mustSync(t, d.v)
	synctest.Wait()
	if s := d.v.Status(); s.State != "ok" || s.DirtyBytes != 0 || s.Waiting != 0 {
		t.Errorf("with the store back: %+v", s)
	}
	readRight(t, d)
}

// A write into a cold region does not wait for a slow store, nor does a discard; one that waits for room ends with its
// context or when the volume is forced to detach.
func TestWritesDoNotWaitForTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, d := filled(t)
		defer func() { r.kill(d.v, false) }()
		f.Always(storetest.Any(), storetest.Slow(time.Minute))
		began := time.Now()
		for i := range int64(20) {
			if err := d.v.WriteAt(t.Context(), make([]byte, 4096), 1<<20+i*40960, i%2 == 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(d.v.Discard(t.Context(), 512<<10, 256<<10), d.v.WriteZeroes(t.Context(), 0, 1<<20)); err != nil {
			t.Fatal(err)
		}
		if e := time.Since(began); e != 0 {
			t.Errorf("writes took %s", e)
		}

		f.Unplug()
		ends := make(chan error, 2)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		go func() { ends <- d.v.WriteAt(ctx, make([]byte, 2<<20), 0, false) }()
		if err := <-ends; !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 5*time.Minute {
			t.Errorf("a write that waits for room ended after %s: %v", time.Since(began), err)
		}
		go func() { ends <- d.v.WriteAt(t.Context(), make([]byte, 2<<20), 0, false) }()
		synctest.Wait()
		detached := errors.New("forced to detach")
		d.v.Kill(detached)
		if err := <-ends; !errors.Is(err, detached) {
			t.Errorf("after a forced detach: %v", err)
		}
	})
}

// Grow and Close wait for their turn to update the manifest no longer than they may.
func TestManifestWaitsEndWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, d := filled(t)
		f.Always(storetest.On(store.OpPut, "volumes/"), storetest.Hang())
		go func() { _ = d.v.Sync(t.Context(), nil) }()
		if err := d.v.WriteAt(t.Context(), make([]byte, 4096), 0, true); err != nil {
			t.Fatal(err)
		}
		go func() { _ = d.v.Sync(t.Context(), nil) }()
		synctest.Wait()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := d.v.Grow(ctx, 8<<20); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("grow ended after %s: %v", time.Since(began), err)
		}
		if d.v.Size() != 4<<20 {
			t.Error("it grew")
		}
		var pending *PendingError
		if err := d.v.Close(t.Context()); !errors.As(err, &pending) || pending.Writes != 1 {
			t.Errorf("close: %v", err)
		}
		r.kill(d.v, false)
	})
}
