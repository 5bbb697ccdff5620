package volume

import (
	"bytes"
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
	"glidefs-appliance/backend/vfs"
)

// failedUpload is a volume with a write whose upload failed in the given ways; the store is well again.
func failedUpload(t *testing.T, faults func(*storetest.Fault)) *Volume {
	t.Helper()
	r := newDiskRig(t)
	f := storetest.NewFault(mem.New())
	r.st = f
	v := r.open(t, "d", OpenOptions{Create: 1 << 20})
	t.Cleanup(func() { r.kill(v, false) })
	if err := v.WriteAt(context.Background(), make([]byte, 64<<10), 0, false); err != nil {
		t.Fatal(err)
	}
	faults(f)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := v.Sync(ctx, nil); err == nil {
		t.Fatal("the upload did not fail")
	}
	f.Clear()
	return v
}

// TestSyncTriesAtOnce: what failed before a sync does not fail it, nor does it wait for the pause after a failure.
func TestSyncTriesAtOnce(t *testing.T) {
	for name, faults := range map[string]func(*storetest.Fault){
		"gone": func(f *storetest.Fault) { f.Always(storetest.Any(), storetest.Fail(store.ErrNoBucket)) },
		"away": func(f *storetest.Fault) { f.Always(storetest.Any(), storetest.Unavailable()) },
		"answer lost": func(f *storetest.Fault) {
			f.Once(storetest.On(store.OpPut, "volumes/"), storetest.AnswerLost())
			f.Always(storetest.On(store.OpGet, "volumes/"), storetest.Unavailable())
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := failedUpload(t, faults)
			ctx, cancel := context.WithTimeout(context.Background(), uploadRetry/2)
			defer cancel()
			if err := v.WriteAt(ctx, make([]byte, 4096), 128<<10, false); err != nil {
				t.Fatal(err)
			}
			if err := v.Sync(ctx, nil); err != nil {
				t.Errorf("sync with a store that is well: %v", err)
			}
			if n := v.Status().DirtyBytes; n != 0 {
				t.Errorf("%d bytes are not in the store", n)
			}
		})
	}
}

// counted counts the uploads that failed, as the log tells.
type counted struct{ atomic.Int64 }

func (c *counted) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("upload failed")) {
		c.Add(1)
	}
	return len(p), nil
}

// TestFailedUploadsKeepTheirPace: however often somebody syncs, an upload that fails is tried again once in a pause; not at
// all when the disk has ended.
func TestFailedUploadsKeepTheirPace(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ended bool
		most  int64
	}{{"refused", false, int64(time.Hour/uploadRetry) + 1}, {"ended", true, 1}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(vfs.NewCrash(), "/state")
			f := storetest.NewFault(mem.New())
			r.st, r.tuning.UploadAge = f, time.Second
			var tries counted
			r.start(t).Log = slog.New(slog.NewTextHandler(&tries, nil))
			v := r.open(t, "d", OpenOptions{Create: 1 << 20})
			defer r.kill(v, false)
			v.Pause(true)
			if err := v.WriteAt(t.Context(), make([]byte, 4096), 0, false); err != nil {
				t.Fatal(err)
			}
			f.Always(storetest.Any(), storetest.Fail(store.ErrDenied))
			if tt.ended {
				v.die(ErrFailed)
			}
			v.Pause(false)
			for range 10 {
				if err := v.Sync(t.Context(), nil); err == nil {
					t.Fatal("synced")
				}
				time.Sleep(time.Second / 10)
			}
			before := tries.Load()
			time.Sleep(time.Hour)
			if n := tries.Load() - before; n > tt.most {
				t.Errorf("%s: %d tries in an hour", tt.name, n)
			}
		})
	}
}
