package volume

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
	"glidefs-appliance/backend/vfs"
)

// faulty puts a store that fails by script under what the appliance has in front of one. It works inside synctest.
func faulty(r *rig) *storetest.Fault {
	f := storetest.NewFault(mem.New())
	r.st = store.NewStack(f, store.StackOptions{})
	return f
}

// misfortune is a random fault for a few random requests.
func misfortune(f *storetest.Fault, rng *rand.Rand) {
	match := []storetest.Match{
		storetest.Any(), storetest.On(store.OpPut, ""), storetest.On(store.OpPut, "volumes/"), storetest.On(store.OpPut, "packs/"),
		storetest.On(store.OpGet, ""), storetest.On(store.OpGet, "volumes/"), storetest.On(store.OpGet, "packs/"), storetest.On(store.OpPut, "maps/"),
	}[rng.IntN(8)]
	do := []storetest.Action{
		storetest.Slow(time.Duration(rng.IntN(20)) * time.Second), storetest.Unavailable(), storetest.ResetAfter(rng.IntN(2000)), storetest.ShortBody(),
		storetest.AnswerLost(), storetest.AnswerLost(), storetest.RequestLost(), storetest.Late(), storetest.Fail(store.ErrDenied), storetest.FlipBit(rng.IntN(1 << 16)),
		storetest.Truncate(rng.IntN(2000)),
	}[rng.IntN(11)]
	f.Times(1+rng.IntN(4), match, do)
}

// TestFaults: the store is slow, answers 503, breaks connections, applies and loses the answer, applies late, refuses the
// credentials for a while, lies about bodies, and lists what was long ago. Writes succeed, reads give the right data or an
// error, and in the end everything is in the store.
func TestFaults(t *testing.T) {
	eachSeed(t, 6*time.Second, func(t *testing.T, seed uint64) {
		synctest.Test(t, func(t *testing.T) { testFaults(t, rand.New(rand.NewPCG(seed, 2))) })
	})
}

func testFaults(t *testing.T, rng *rand.Rand) {
	r := newRig(vfs.NewCrash(), "/state")
	f := faulty(r)
	r.log, r.cache = 6*64<<10, 256<<10
	r.tuning.BatchBytes, r.tuning.UploadAge = 48<<10, 10*time.Second
	d := &disk{witness: newWitness("a", 4096, make([]byte, crashSectors*4096))}
	d.v = r.open(t, "a", OpenOptions{Create: int64(len(d.now))})
	if err := f.FreezeLists(t.Context()); err != nil {
		t.Fatal(err)
	}
	var acks []ack
	for range 150 {
		instantHolds(t, d.v, acks)
		switch k := rng.IntN(20); {
		case k < 3:
			misfortune(f, rng)
		case k < 4:
			f.ApplyLate(context.Background())
		case k < 6:
			time.Sleep(time.Duration(rng.IntN(15)) * time.Second)
		case k < 10:
			readRight(t, d)
		case k < 11:
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			_ = d.v.Sync(ctx, nil)
			cancel()
		default:
			if _, err := d.request(rng, func() {}); err != nil && !unreadable(err) {
				t.Fatalf("%s: %v", d.what[d.last()], err)
			} else if err != nil {
				f.Clear() // an odd write could not read its edges
				if d.now = contentAtLast(t, d); t.Failed() {
					return
				}
			}
			acks = append(acks, ack{d.v.log.LastSeq(), time.Now()})
		}
	}
	f.Clear()
	f.ApplyLate(context.Background())
	defer func() { r.kill(d.v, false) }()
	uploadAll(t, d.v)
	readRight(t, d)
	elsewhere(t, r, d)
}

// elsewhere loses the machine: what is in the store is what was written.
func elsewhere(t *testing.T, r *rig, d *disk) {
	t.Helper()
	r.kill(d.v, false)
	r.fs, r.state = vfs.NewCrash(), r.state+1
	d.v = r.open(t, d.name, OpenOptions{Takeover: true})
	if got, err := d.content(); err != nil || firstDiff(got, d.now) >= 0 {
		t.Fatalf("elsewhere: wrong from byte %d, %v", firstDiff(got, d.now), err)
	}
}

// A merge that leaves nothing but map pages is bound by the grace time like any other: they are objects, too.
func TestLateMergeWithoutPacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, d := filled(t)
		defer func() { r.kill(d.v, false) }()
		f.ResetCounts()
		o := output{v: d.v}
		err := o.publish(t.Context(), func(next *manifest.Manifest) error {
			ref := pack.Ref{Size: 200, IndexLen: 100, End: 1, Sectors: 1}
			root, err := r.h.Pages.Update(t.Context(), manifest.Root{}, 0, 1, []pack.Ref{ref})
			next.Levels = append(next.Levels, root)
			time.Sleep(manifest.Grace / 3)
			return err
		})
		if !errors.Is(err, manifest.ErrLate) || f.Count(store.OpPut) != 1 {
			t.Errorf("%v, %d requests", err, f.Count(store.OpPut))
		}
	})
}

// ack: everything up to this seq was acknowledged at that time.
type ack struct {
	seq uint64
	at  time.Time
}

// instantHolds checks that what was acknowledged before the instant in Status is in the store.
func instantHolds(t *testing.T, v *Volume, acks []ack) {
	t.Helper()
	s := v.Status()
	for _, a := range acks {
		if a.seq > s.BarrierSeq && a.at.Before(s.BarrierTime) {
			t.Errorf("the store is exact up to %s and record %d, but %d was acknowledged at %s", s.BarrierTime, s.BarrierSeq, a.seq, a.at)
		}
	}
}

// contentAtLast reads the disk, which is as before or after its last request, or after a part of that.
func contentAtLast(t *testing.T, d *disk) []byte {
	t.Helper()
	got, err := d.content()
	for range 5 {
		if err != nil {
			time.Sleep(10 * time.Second)
			got, err = d.content()
		}
	}
	if err == nil {
		_, err = d.match(got, d.last()-1, d.last(), false)
	}
	if err != nil {
		t.Errorf("after a failed request: %v", err)
	}
	d.states[d.last()] = hashes(got, d.sector)
	return got
}

// unreadable tells that the store could not give what was asked for.
func unreadable(err error) bool {
	return store.Retryable(err) || errors.Is(err, store.ErrDenied) || errors.Is(err, ErrDamaged) || errors.Is(err, manifest.ErrDamaged) || errors.Is(err, context.DeadlineExceeded)
}

// readRight reads the disk piece by piece: each is right or can't be read now.
func readRight(t *testing.T, d *disk) {
	t.Helper()
	p := make([]byte, 16<<10)
	for off := int64(0); off < d.v.Size(); off += int64(len(p)) {
		err := d.v.ReadAt(t.Context(), p, off)
		if err != nil && !unreadable(err) {
			t.Fatalf("read %d: %v", off, err)
		}
		if err == nil && firstDiff(p, d.now[off:]) >= 0 {
			t.Fatalf("read %d: wrong from byte %d", off, firstDiff(p, d.now[off:]))
		}
	}
}

// uploadAll syncs again as long as what is wrong may pass.
func uploadAll(t *testing.T, v *Volume) {
	t.Helper()
	for range 10 {
		err := v.Sync(t.Context(), nil)
		if err == nil {
			return
		}
		if !unreadable(err) {
			t.Fatalf("sync: %v", err)
		}
		time.Sleep(time.Minute)
	}
	t.Fatal("sync goes on failing")
}

// TestUnsettledUpdates: the manifest PUT of a batch is applied, its answer is lost, and the store refuses the credentials
// before it could be asked what became of it. The next batch finds a manifest that its volume has never seen.
func TestUnsettledUpdates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 1))
		r := newRig(vfs.NewCrash(), "/state")
		r.tuning.TailPacks = 10 // more than small neighbours need
		f := faulty(r)
		d := &disk{witness: newWitness("a", 512, make([]byte, 256<<10))}
		d.v = r.open(t, "a", OpenOptions{Create: int64(len(d.now)), Sector: 512})
		defer func() { r.kill(d.v, false) }()
		for i := range 120 { // inline packs gather and are taken along, small packs are merged
			p := d.now[rng.IntN(400)*512:][:512*(1+rng.IntN([]int{3, 3, 3, 100}[rng.IntN(4)]))]
			for j := range p {
				p[j] = byte(rng.Uint32())
			}
			if err := d.v.WriteAt(t.Context(), p, int64(cap(d.now)-cap(p)), false); err != nil {
				t.Fatal(err)
			}
			switch i % 4 {
			case 0:
				f.Once(storetest.On(store.OpPut, "volumes/"), storetest.AnswerLost())
				f.Once(storetest.On(store.OpPut, "volumes/"), storetest.Fail(store.ErrDenied))
			case 2:
				f.Once(afterMerge(), storetest.AnswerLost())
				f.Once(afterMerge(), storetest.Fail(store.ErrDenied))
			}
			uploadAll(t, d.v)
			synctest.Wait()
			readRight(t, d)
		}
		elsewhere(t, r, d)
	})
}

// afterMerge matches the manifest PUT of a compaction.
func afterMerge() storetest.Match {
	merged := false
	return func(q storetest.Request) bool {
		merged = merged || q.Op == store.OpPut && q.Class == store.Compaction
		return merged && q.Op == store.OpPut && q.Key == manifest.Key("a")
	}
}

// A pack whose manifest PUT got no answer for so long that the pack may have been collected is written again, under
// another name.
func TestLateBatchIsWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, d := filled(t)
		defer func() { r.kill(d.v, false) }()
		f.ResetCounts()
		gate := f.Gate(storetest.On(store.OpPut, "volumes/"))
		d.stamp(d.now[:1<<16], 9, rand.New(rand.NewPCG(9, 9)))
		if err := d.v.WriteAt(t.Context(), d.now[:1<<16], 0, false); err != nil {
			t.Fatal(err)
		}
		synced := make(chan error)
		go func() { synced <- d.v.Sync(t.Context(), nil) }()
		held := <-gate.C
		time.Sleep(manifest.Grace / 3)
		held.Fail(store.ErrUnavailable)
		gate.Open()
		if err := <-synced; err != nil {
			uploadAll(t, d.v)
		}
		var first string
		for _, q := range f.Log() {
			if first == "" && q.Op == store.OpPut && q.Class == store.Upload {
				first = q.Key
			}
		}
		for _, e := range d.v.currentView().man.Tail {
			if e.Ref.Hash.Key() == first {
				t.Errorf("the manifest names %s, a third of the grace time later", first)
			}
		}
		elsewhere(t, r, d)
	})
}
