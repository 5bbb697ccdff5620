package volume

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
	"glidefs-appliance/backend/vfs"
)

// TestKillEndsColdReads: a read that waits for the store, and one that waits for the same object, end at once when the
// disk is given up, and say why.
func TestKillEndsColdReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := storetest.NewFault(mem.New())
		r := newRig(vfs.NewCrash(), "/state")
		r.st = f
		v := r.open(t, "a", OpenOptions{Create: 1 << 20})
		if err := v.WriteAt(t.Context(), append(blockOf(1, 1), blockOf(2, 1)...), 0, false); err != nil {
			t.Fatal(err)
		}
		mustSync(t, v)
		r.close(t, v)
		if err := r.fs.RemoveAll("/state"); err != nil {
			t.Fatal(err)
		}
		v = r.open(t, "a", OpenOptions{})
		f.Always(storetest.On(store.OpGet, "packs/"), storetest.Hang())
		done := make(chan error, 2)
		for i := range int64(2) {
			go func() { done <- v.ReadAt(t.Context(), make([]byte, 512), i*4096) }()
		}
		synctest.Wait()
		began := time.Now()
		r.kill(v, false)
		for range 2 {
			if err := <-done; !errors.Is(err, ErrClosed) {
				t.Errorf("read: %v", err)
			}
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("they ended after %s", took)
		}
	})
}
