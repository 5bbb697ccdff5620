package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/gc"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/storetest"
	"glidefs-appliance/backend/vfs"
)

// crashed is a disk whose daemon was killed: most of it is in the store, the last writes are only in the log.
func crashed(t *testing.T) (*rig, *storetest.Fault, *disk) {
	r, f, d := filled(t)
	rng := rand.New(rand.NewPCG(9, 9))
	d.v.Pause(true)
	for i := range 10 {
		p := d.now[2<<20+i*40960:][:8192]
		d.stamp(p, int64(i), rng)
		if err := d.v.WriteAt(t.Context(), p, int64(2<<20+i*40960), i == 9); err != nil {
			t.Fatal(err)
		}
	}
	return r, f, d
}

// TestOpenOffline: after a crash, and after a power cut, a disk opens without the store, soon, whatever the store does
// instead of answering; it reads what is here, takes writes, and is whole in the store when that is back.
func TestOpenOffline(t *testing.T) {
	for name, gone := range map[string]storetest.Action{"refuses": storetest.Unavailable(), "hangs": storetest.Hang()} {
		for _, cut := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, cut %v", name, cut), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testOpenOffline(t, storetest.Any(), gone, cut) })
			})
		}
	}
	t.Run("answers reads only", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { testOpenOffline(t, storetest.On(store.OpPut, ""), storetest.Unavailable(), false) })
	})
}

func testOpenOffline(t *testing.T, what storetest.Match, gone storetest.Action, cut bool) {
	r, f, d := crashed(t)
	r.kill(d.v, cut)
	if fs := r.fs.(*vfs.Crash); cut {
		r.fs = fs.CutAt(fs.Ops(), rand.New(rand.NewPCG(3, 3)))
	}
	outage := f.Always(what, gone)
	began := time.Now()
	d.v = r.open(t, "a", OpenOptions{})
	defer func() { r.kill(d.v, false) }()
	if e := time.Since(began); e > time.Minute {
		t.Errorf("it took %s", e)
	}
	outage.Remove() // a store gives up on what hangs, sooner or later
	outage = f.Unplug()
	epoch := d.v.Status().Epoch
	readAt(t, d, 2<<20, 8192, 0)
	p := d.now[3<<20:][:40960]
	d.stamp(p, 5, rand.New(rand.NewPCG(4, 4)))
	if err := d.v.WriteAt(t.Context(), p, 3<<20, true); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := d.v.Sync(ctx, nil); err == nil {
		t.Error("sync without the store")
	}
	if s := d.v.Status(); s.State != "offline" || s.DirtyWrites != 11 || s.Reason == "" {
		t.Errorf("%+v", s)
	}
	readRight(t, d)
	outage.Remove()
	uploadAll(t, d.v)
	if s := d.v.Status(); s.State != "ok" || s.DirtyWrites != 0 || s.Epoch != epoch+1 {
		t.Errorf("with the store back: %+v, epoch was %d", s, epoch)
	}
	elsewhere(t, r, d)
}

// What may not open without the store: a disk that was detached here, one that never was here, and an attach that must
// ask the store (take-over, read-only).
func TestOpenOfflineRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, d := crashed(t)
		r.kill(d.v, false)
		outage := f.Unplug()
		for _, o := range []OpenOptions{{Takeover: true}, {ReadOnly: true}} {
			refused(t, r, "a", o)
		}
		refused(t, r, "other", OpenOptions{})
		outage.Remove()
		d.v = r.open(t, "a", OpenOptions{})
		mustSync(t, d.v)
		r.close(t, d.v)
		f.Unplug()
		refused(t, r, "a", OpenOptions{})
		_ = r.c.Close()
	})
}

func refused(t *testing.T, r *rig, name string, o OpenOptions) {
	t.Helper()
	if r.h == nil {
		r.start(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if v, err := Open(ctx, r.h, name, o); err == nil {
		t.Errorf("%s with %+v opened without the store", name, o)
		v.Kill(ErrClosed)
	} else if !unreadable(err) {
		t.Errorf("%s with %+v: %v", name, o, err)
	}
}

// A disk that is opened without the store although it has another owner by now never overwrites that one's, and keeps its
// own log.
func TestOpenOfflineAfterTakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, d := crashed(t)
		r.kill(d.v, false)
		b := newRig(vfs.NewCrash(), "/state")
		b.st, b.state = f.Inner(), 2
		other := b.open(t, "a", OpenOptions{Takeover: true})
		if err := other.WriteAt(t.Context(), make([]byte, 1<<20), 0, false); err != nil {
			t.Fatal(err)
		}
		mustSync(t, other)
		outage := f.Unplug()
		d.v = r.open(t, "a", OpenOptions{})
		if err := d.v.WriteAt(t.Context(), make([]byte, 4096), 0, true); err != nil {
			t.Fatal(err)
		}
		outage.Remove()
		if err := d.v.Sync(t.Context(), nil); !errors.Is(err, ErrFenced) {
			t.Errorf("sync: %v", err)
		}
		everythingFails(t, d.v, ErrFenced)
		r.kill(d.v, false)
		b.close(t, other)
		_, err := Open(t.Context(), r.start(t), "a", OpenOptions{})
		var foreign *LogForeignError
		if !errors.As(err, &foreign) || foreign.Writes != 11 {
			t.Errorf("open: %v", err)
		}
		_ = r.c.Close()
		cell, err := manifest.Read(t.Context(), f.Inner(), "a")
		if err != nil || cell.Current().Owner.State != [16]byte{2} {
			t.Errorf("the manifest is %+v's, %v", cell.Current().Owner, err)
		}
	})
}

// TestFollower: a read-only attach shows the store's instant at which it was made; when compaction and the collection of
// garbage take its packs away it goes on with a later one.
func TestFollower(t *testing.T) { synctest.Test(t, testFollower) }

func testFollower(t *testing.T) {
	a, b := newSites(t)
	a.tuning.TailPacks = 1
	a.attach(OpenOptions{Create: siteSize})
	a.write(30)
	a.sync()
	b.attach(OpenOptions{ReadOnly: true})
	b.is(a.now, "A")
	instant := b.v.Status().BarrierTime
	a.write(3)
	a.sync()
	if s := b.v.Status(); !s.ReadOnly || !s.BarrierTime.Equal(instant) {
		t.Errorf("%+v", s)
	}
	for range 10 {
		a.write(5)
		a.sync()
		a.v.compactNow(t)
		collect(t, a.st)
	}
	b.close(t, b.v)
	b.cache = 0 // a clean cache would keep the instant alive
	b.attach(OpenOptions{ReadOnly: true})
	b.is(a.now, "A")
	instants, seen := [][]byte{bytes.Clone(a.now)}, 0
	for range 10 {
		a.write(8)
		a.sync()
		instants = append(instants, bytes.Clone(a.now))
		a.v.compactNow(t)
		collect(t, a.st)
		if err := b.v.ReadAt(t.Context(), b.now, 0); err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(instants, func(p []byte) bool { return bytes.Equal(p, b.now) })
		if at < seen {
			t.Fatalf("the follower went from instant %d to %d", seen, at)
		}
		seen = at
	}
	if seen == 0 {
		t.Error("the follower never had to go on")
	}
	b.close(t, b.v)
	a.detach()
}

// collect deletes all garbage, in virtual time. Its callers have nothing under way.
func collect(t *testing.T, st store.Store) gc.Report {
	t.Helper()
	time.Sleep(2 * time.Second)
	rep, err := gc.Run(t.Context(), st, gc.Options{Grace: time.Second, Quiet: func() map[[16]byte]bool {
		quiet := map[[16]byte]bool{}
		for info, err := range st.List(t.Context(), "volumes/", "") {
			raw, _, gerr := st.Get(t.Context(), info.Key, store.Range{})
			m, derr := manifest.Decode(raw)
			if err := errors.Join(err, gerr, derr); err != nil {
				t.Error(err)
				continue
			}
			quiet[m.Log] = true
		}
		return quiet
	}})
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// A daemon that dies while it detaches: once the store says that the disk is free, it does not open without the store.
func TestOpenOfflineAfterHalfADetach(t *testing.T) {
	fs := vfs.NewCrash()
	r := newRig(fs, "/state")
	j := newJournal(nil, fs.Ops)
	r.st = j
	v := r.open(t, "a", OpenOptions{Create: 1 << 20})
	if err := v.WriteAt(t.Context(), make([]byte, 4096), 0, false); err != nil {
		t.Fatal(err)
	}
	mustSync(t, v)
	began := fs.Ops()
	r.close(t, v)
	freed := 0
	for k := began; k <= fs.Ops(); k++ {
		man, err := manifest.Decode(j.at(k, rand.New(rand.NewPCG(1, 1)))[manifest.Key("a")])
		if err != nil {
			t.Fatal(err)
		}
		if !man.Closed {
			continue
		}
		freed++
		synctest.Test(t, func(t *testing.T) {
			r := newRig(fs.KillAt(k), "/state")
			faulty(r).Unplug()
			refused(t, r, "a", OpenOptions{})
			_ = r.c.Close()
		})
	}
	if freed < 3 {
		t.Errorf("only %d points after the PUT", freed)
	}
}

// TestOpenOfflineBehindTheStore: the answer to the last manifest PUT was lost with the daemon, so the store knows more than
// the copy beside the log. The host reboots, and the store answers reads but takes no PUT: the disk opens as it was.
func TestOpenOfflineBehindTheStore(t *testing.T) {
	for _, more := range []int{0, 3} {
		t.Run(fmt.Sprintf("%d writes after that PUT", more), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testOpenOfflineBehindTheStore(t, more) })
		})
	}
}

func testOpenOfflineBehindTheStore(t *testing.T, more int) {
	r, f, d := crashed(t)
	known := d.v.Status().BarrierSeq
	f.Always(storetest.On(store.OpPut, "volumes/"), storetest.AnswerLost())
	f.Always(storetest.On(store.OpGet, "volumes/"), storetest.Unavailable())
	d.v.Pause(false)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	_ = d.v.Sync(ctx, nil)
	cancel()
	rng := rand.New(rand.NewPCG(5, 5))
	for i := range more {
		p := d.now[1<<20+i*8192:][:4096]
		d.stamp(p, int64(20+i), rng)
		if err := d.v.WriteAt(t.Context(), p, int64(1<<20+i*8192), true); err != nil {
			t.Fatal(err)
		}
	}
	if at := d.v.Status().BarrierSeq; at != known {
		t.Fatalf("the daemon knows of barrier %d", at)
	}
	r.kill(d.v, true)
	fs := r.fs.(*vfs.Crash)
	r.fs = fs.CutAt(fs.Ops(), rng)
	f.Clear()
	f.Always(storetest.On(store.OpPut, ""), storetest.Unavailable())
	d.v = r.open(t, "a", OpenOptions{})
	defer func() { r.kill(d.v, false) }()
	if s := d.v.Status(); s.State != "offline" || s.DirtyWrites != uint64(more) {
		t.Errorf("%+v", s)
	}
	readRight(t, d)
	f.Clear()
	uploadAll(t, d.v)
	readRight(t, d)
	elsewhere(t, r, d)
}
