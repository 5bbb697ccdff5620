package volume

import (
	"context"
	"testing"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
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
