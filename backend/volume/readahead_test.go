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
