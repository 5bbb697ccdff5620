package volume

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/storetest"
	"glidefs-appliance/backend/vfs"
)

// stock is what a store holds below a prefix.
func stock(t *testing.T, st store.Store, prefix string) (objects int, bytes int64) {
	for in, err := range st.List(t.Context(), prefix, "") {
		if err != nil {
			t.Fatal(err)
		}
		objects, bytes = objects+1, bytes+in.Size
	}
	return objects, bytes
}

// TestDiscardGivesSpaceBack proves a discard by bytes freed, in the log at once with room for others, in the store after
// compaction and a collection of garbage; by one discard of all, by many small ones, and by write-zeroes.
func TestDiscardGivesSpaceBack(t *testing.T) {
	for name, step := range map[string]int64{"at once": 16 << 20, "in pieces": 64 << 10, "zeroes": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testSpace(t, step, name == "zeroes") })
		})
	}
}

func testSpace(t *testing.T, step int64, zeroes bool) {
	r := newRig(vfs.NewCrash(), "/state")
	r.log, r.tuning.BatchBytes, r.tuning.LevelBytes = 64<<20, 1<<20, 4<<20
	v := r.open(t, "a", OpenOptions{Create: 16 << 20})
	defer func() { r.kill(v, false) }()
	p := make([]byte, 1<<20)
	for off := int64(0); off < v.Size(); off += int64(len(p)) {
		fillRandom(p, rand.New(rand.NewPCG(1, uint64(off))))
		if err := v.WriteAt(t.Context(), p, off, false); err != nil {
			t.Fatal(err)
		}
	}
	mustSync(t, v)
	v.compactNow(t)
	collect(t, r.st)
	if _, full := stock(t, r.st, ""); full < v.Size() || full > v.Size()*5/4 {
		t.Fatalf("%d bytes in the store for %d", full, v.Size())
	}
	if v.Status().LogBytes < v.Size() {
		t.Fatalf("%d bytes in the log", v.Status().LogBytes)
	}
	for off := int64(0); off < v.Size(); off += step {
		zero := v.Discard
		if zeroes {
			zero = v.WriteZeroes
		}
		if err := zero(t.Context(), off, step); err != nil {
			t.Fatal(err)
		}
	}
	if dirty := v.Status().DirtyBytes; dirty != 0 {
		t.Errorf("a discard is %d bytes to upload", dirty)
	}
	mustSync(t, v)
	v.compactNow(t)
	collect(t, r.st)
	if _, left := stock(t, r.st, ""); left > 64<<10 {
		t.Errorf("%d bytes are left in the store", left)
	}
	if s := v.Status(); s.UploadedSize > 64<<10 {
		t.Errorf("the manifest names %d bytes", s.UploadedSize)
	}
	synctest.Wait()
	if s, used := v.Status(), r.h.Budget.Used(); s.LogBytes > 4<<20 || used != s.LogBytes {
		t.Errorf("the log holds %d bytes, the budget says %d", s.LogBytes, used)
	}
}

// TestIdle: with everything in the store and merged, a minute, and an hour, bring no request (P10); making a disk is one
// PUT, after one look whether it is there, and that is the only object.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(vfs.NewCrash(), "/state")
		r.tuning.UploadAge = 10 * time.Second
		f := faulty(r)
		v := r.open(t, "a", OpenOptions{Create: 1 << 40})
		defer func() { r.kill(v, false) }()
		if n, _ := stock(t, f.Inner(), ""); n != 1 || f.Count(store.OpPut) != 1 || f.Count() != 2 {
			t.Errorf("%d objects after %v", n, f.Log())
		}
		idle(t, f)
		rng := rand.New(rand.NewPCG(7, 7))
		p := make([]byte, 50_000)
		for range 100 {
			fillRandom(p, rng)
			if err := v.WriteAt(t.Context(), p, rng.Int64N(v.Size()-int64(len(p))), false); err != nil {
				t.Fatal(err)
			}
			if err := v.ReadAt(t.Context(), p, rng.Int64N(v.Size()-int64(len(p)))); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute) // by age
		if s := v.Status(); s.DirtyWrites != 0 {
			t.Errorf("%+v", s)
		}
		idle(t, f)
	})
}

func idle(t *testing.T, f *storetest.Fault) {
	t.Helper()
	f.ResetCounts()
	time.Sleep(time.Minute)
	time.Sleep(time.Hour)
	if n := f.Count(); n != 0 {
		t.Errorf("idle: %v", f.Log())
	}
}
