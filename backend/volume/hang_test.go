package volume

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/vfs"
)

// deaf is a store in which the first PUT of each kind hangs, whatever its context says, and is done when the test lets it.
type deaf struct {
	*mem.Store
	let             chan struct{}
	packs, manifest atomic.Bool
}

func (d *deaf) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	once := &d.manifest
	if strings.HasPrefix(key, "packs/") {
		once = &d.packs
	}
	if once.CompareAndSwap(true, false) {
		<-d.let
		if ctx.Err() != nil {
			return store.Info{}, ctx.Err() // as the contract wants it: the body may be somebody else's by now
		}
	}
	return d.Store.Put(ctx, key, body, c)
}

// TestUploadsOutliveHangingRequests: PUTs that never return stop the uploader for minutes, not for ever.
func TestUploadsOutliveHangingRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &deaf{Store: mem.New(), let: make(chan struct{})}
		r := newRig(vfs.NewCrash(), "/state")
		r.st = store.NewStack(d, store.StackOptions{})
		v := r.open(t, "a", OpenOptions{Create: 1 << 20})
		d.packs.Store(true)
		d.manifest.Store(true)
		want := bytes.Repeat(blockOf(1, 1), 16)
		if err := v.WriteAt(t.Context(), want, 0, false); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		mustSync(t, v)
		if took := time.Since(began); took < time.Minute || took > 10*time.Minute {
			t.Errorf("synced after %s", took)
		}
		close(d.let)
		r.kill(v, false)
		if err := r.fs.RemoveAll("/state"); err != nil {
			t.Fatal(err)
		}
		r.state++
		v = r.open(t, "a", OpenOptions{Takeover: true})
		got := make([]byte, len(want))
		if err := v.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("wrong from byte %d, %v", firstDiff(got, want), err)
		}
		r.kill(v, false)
	})
}
