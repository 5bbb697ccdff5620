package volume

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/storetest"
	"glidefs-appliance/backend/vfs"
)

// TestGuestDoesNotWaitBehindReadahead: requests of readahead may wait for their turn as long as guests have requests. A guest
// who wants what one of them is to bring asks for it himself.
func TestGuestDoesNotWaitBehindReadahead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(vfs.NewCrash(), "/state")
		f := faulty(r)
		v := r.open(t, "a", OpenOptions{Create: 4 << 20})
		want := make([]byte, v.Size())
		_, _ = rand.NewChaCha8([32]byte{8}).Read(want)
		if err := v.WriteAt(t.Context(), want, 0, false); err != nil {
			t.Fatal(err)
		}
		mustSync(t, v)
		r.close(t, v)
		v = r.open(t, "a", OpenOptions{})
		defer func() { r.kill(v, false) }()
		f.Always(func(q storetest.Request) bool { return q.Op == store.OpGet && q.Class == store.Prefetch }, storetest.Hang())
		p := make([]byte, 256<<10) // of many frames
		for off := 0; off < 2<<20; off += len(p) {
			began := time.Now()
			if err := v.ReadAt(t.Context(), p, int64(off)); err != nil || !bytes.Equal(p, want[off:off+len(p)]) {
				t.Fatalf("read %d: wrong from byte %d, %v", off, firstDiff(p, want[off:]), err)
			}
			if took := time.Since(began); took > 3*joinPatience {
				t.Errorf("read %d took %s", off, took)
			}
		}
		if f.Counts()[store.Prefetch][store.OpGet] == 0 {
			t.Error("nothing was read ahead")
		}
	})
}

// TestNothingIsReadAheadTwice: a sequential reader of clean frames reads each once.
func TestNothingIsReadAheadTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, d := filled(t)
		r.kill(d.v, false)
		r.fs = vfs.NewCrash()
		d.v = r.open(t, "a", OpenOptions{ReadOnly: true})
		defer func() { r.kill(d.v, false) }()
		const step, end = 32 << 10, 1 << 20
		pass := func() {
			for off := int64(0); off < end; off += step {
				readAt(t, d, off, step, 0)
				synctest.Wait() // for what is read ahead
			}
		}
		pass()
		before := r.c.Stats()
		pass()
		if s := r.c.Stats(); s.Misses != before.Misses || s.Hits-before.Hits > end/step+8 {
			t.Errorf("%d hits and %d misses for %d reads", s.Hits-before.Hits, s.Misses-before.Misses, end/step)
		}
	})
}
