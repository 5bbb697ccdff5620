package volume

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/storetest"
	"glidefs-appliance/backend/vfs"
	"glidefs-appliance/backend/wlog"
	"glidefs-appliance/frontends"
)

// sickbed is a host with a disk that is about to panic and one that is well.
type sickbed struct {
	t          *testing.T
	r          *rig
	st         *storetest.Fault
	fs         *vfs.Fault
	sick, well *Volume
	want       []byte // on the sick one
}

func newSickbed(t *testing.T) *sickbed {
	s := &sickbed{t: t, r: newDiskRig(t)}
	s.st, s.fs = storetest.NewFault(s.r.st), vfs.NewFault(s.r.fs)
	s.r.st, s.r.fs = s.st, s.fs
	s.r.tuning.InlineBytes = 1
	s.sick = s.r.open(t, "sick", OpenOptions{Create: 1 << 20})
	s.well = s.r.open(t, "well", OpenOptions{Create: 1 << 20})
	s.want = make([]byte, 1<<20)
	s.write(8)
	mustSync(t, s.sick)
	return s
}

// write changes some of the sick disk.
func (s *sickbed) write(n int) {
	for range n {
		p, at := storetest.Random(rand.Uint64(), 16<<10), 4096*rand.Int64N(252)
		copy(s.want[at:], p)
		if err := s.sick.WriteAt(s.t.Context(), p, at, false); err != nil {
			s.t.Fatal(err)
		}
	}
}

// onLog has fn called before what is done to the segments of the sick disk's log.
func (s *sickbed) onLog(fn func(vfs.Op)) {
	s.fs.Before(func(op vfs.Op, name string) error {
		if strings.Contains(name, "logs/sick/") && strings.HasSuffix(name, ".seg") {
			fn(op)
		}
		return nil
	})
}

// forget has reads of the sick disk go to the store.
func (s *sickbed) forget() {
	s.r.kill(s.sick, true)
	s.r.start(s.t)
	s.sick, s.well = s.r.open(s.t, "sick", OpenOptions{}), s.r.open(s.t, "well", OpenOptions{})
}

// ended waits until the sick disk has failed, and looks at what its users get.
func (s *sickbed) ended() {
	t, v := s.t, s.sick
	for v.dead.Load() == nil {
		v.mu.Lock()
		changed := v.mu.changed
		v.mu.Unlock()
		if v.dead.Load() == nil {
			<-changed
		}
	}
	ctx, p := t.Context(), make([]byte, 4096)
	for what, err := range map[string]error{
		"read": v.ReadAt(ctx, p, 0), "write": v.WriteAt(ctx, p, 0, false), "synced write": v.WriteAt(ctx, p, 0, true),
		"odd write": v.WriteAt(ctx, p[:7], 5, false), "flush": v.Flush(ctx), "discard": v.Discard(ctx, 0, 4096), "sync": v.Sync(ctx, nil),
	} {
		if !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "panic") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if st := v.Status(); st.State != "failed" {
		t.Errorf("status: %q", st.State)
	}
	if err := v.Close(ctx); !errors.Is(err, ErrFailed) {
		t.Errorf("close: %v", err)
	}
}

// others looks whether the well disk works, with all that it shares with the sick one, and whether everything is there
// when that is attached again.
func (s *sickbed) others() {
	t := s.t
	s.fs.Before(nil)
	for i := range 4 {
		p, q := storetest.Random(uint64(i), 256<<10), make([]byte, 256<<10)
		if err := s.well.WriteAt(t.Context(), p, int64(i)<<18, true); err != nil {
			t.Fatal(err)
		}
		mustSync(t, s.well)
		if err := s.well.ReadAt(t.Context(), q, int64(i)<<18); err != nil || !bytes.Equal(p, q) {
			t.Errorf("read of the well disk: %v", err)
		}
	}
	s.well.compactNow(t)
	sh := s.r.h.shared()
	if !sh.batches.TryAcquire(batchMemory) || !sh.reads.TryAcquire(readMemory) || len(sh.prefetch)+len(s.r.h.CPU)+len(sh.merging) > 0 || len(sh.flights.m) > 0 {
		t.Error("something of what disks share was not given back")
	}
	sh.batches.Release(batchMemory)
	sh.reads.Release(readMemory)
	s.sick = s.r.open(t, "sick", OpenOptions{})
	got := make([]byte, len(s.want))
	if err := s.sick.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, s.want) {
		t.Errorf("after the panic, attached again: %v", err)
	}
	mustSync(t, s.sick)
	s.r.kill(s.sick, false)
	s.well.Kill(ErrClosed)
}

// TestPanicsInTheBackground: a broken invariant in the work of a disk ends that disk and no other.
func TestPanicsInTheBackground(t *testing.T) {
	cases := map[string]func(s *sickbed){
		"a pack's upload": func(s *sickbed) {
			s.st.Once(storetest.On(store.OpPut, "packs/"), storetest.Panic())
			s.write(4) // less than a batch
			_ = s.sick.Sync(s.t.Context(), nil)
		},
		"the manifest": func(s *sickbed) {
			s.st.Once(storetest.On(store.OpPut, "volumes/sick/"), storetest.Panic())
			s.write(4) // less than a batch
			_ = s.sick.Sync(s.t.Context(), nil)
		},
		"the cut": func(s *sickbed) {
			s.write(4)
			s.onLog(func(op vfs.Op) {
				if op == vfs.OpRead {
					panic("as asked")
				}
			})
			_ = s.sick.Sync(s.t.Context(), nil)
		},
		"the build": func(s *sickbed) {
			s.write(4)
			b, err := s.sick.cut(s.sick.mu.settled)
			if err != nil {
				s.t.Fatal(err)
			}
			b.fold.insert(0, 1, 9999<<32)
			if err := s.sick.try(func() error { return s.sick.buildNext(s.t.Context(), b, b.after, make(chan *batch)) }); !errors.Is(err, ErrFailed) {
				s.t.Errorf("build: %v", err)
			}
		},
		"room in the log": func(s *sickbed) {
			s.onLog(func(op vfs.Op) {
				if op == vfs.OpCreate {
					panic("as asked")
				}
			})
			for s.sick.dead.Load() == nil {
				p := make([]byte, 16<<10)
				if err := s.sick.WriteAt(s.t.Context(), p, 0, false); err == nil {
					copy(s.want, p)
				}
			}
		},
		"compaction": func(s *sickbed) {
			s.r.h.Merged = func() { s.r.h.Merged = nil; panic("as asked") }
			for range 12 {
				s.write(2)
				if s.sick.Sync(s.t.Context(), nil) != nil {
					break
				}
			}
		},
		"a cold read": func(s *sickbed) {
			s.forget()
			s.st.Once(storetest.On(store.OpGet, "packs/"), storetest.Panic())
			func() {
				defer func() { // as a frontend does
					if p := recover(); p != nil {
						_ = s.sick.Panicked(p, nil)
					}
				}()
				_ = s.sick.ReadAt(s.t.Context(), make([]byte, len(s.want)), 0)
			}()
		},
		"a cold read's frames": func(s *sickbed) {
			s.forget()
			if err := s.sick.resolver().resolve(s.t.Context(), s.sick.currentView(), 0, 256); err != nil { // the indexes
				s.t.Fatal(err)
			}
			s.st.Once(storetest.On(store.OpGet, "packs/"), storetest.Panic())
			_ = s.sick.ReadAt(s.t.Context(), make([]byte, len(s.want)), 0)
		},
	}
	for name, begin := range cases {
		t.Run(name, func(t *testing.T) {
			s := newSickbed(t)
			begin(s)
			s.ended()
			s.others()
		})
	}
}

// TestPanicInOpen: what keeps one disk from being attached does not end the daemon that attaches others.
func TestPanicInOpen(t *testing.T) {
	s := newSickbed(t)
	s.write(4)
	s.forget()
	s.r.kill(s.sick, true)
	s.r.start(t)
	s.well = s.r.open(t, "well", OpenOptions{})
	s.onLog(func(op vfs.Op) {
		if op == vfs.OpSync {
			panic("as asked")
		}
	})
	if _, err := Open(t.Context(), s.r.h, "sick", OpenOptions{}); !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "panic") {
		t.Errorf("open: %v", err)
	}
	s.others()
}

// TestPanicOfTheOneWhoLeads: those whose synced writes another one was writing do not wait for him.
func TestPanicOfTheOneWhoLeads(t *testing.T) {
	s := newSickbed(t)
	var once sync.Once
	s.onLog(func(op vfs.Op) {
		if op == vfs.OpWrite {
			once.Do(func() { panic("as asked") })
		}
	})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			p := s.want[4096*i:][:4096]
			if err := s.sick.WriteAt(t.Context(), p, int64(4096*i), true); !errors.Is(err, ErrFailed) {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	s.ended()
	s.others()
}

// TestPanicsUnderTheLock: who panics with the disk's lock leaves it to whoever tells what happened.
func TestPanicsUnderTheLock(t *testing.T) {
	nowhere := uint64(9999) << 32
	cases := map[string]func(v *Volume){
		"read":      func(v *Volume) { _ = v.ReadAt(context.Background(), make([]byte, 4096), 0) },
		"long read": func(v *Volume) { _ = v.ReadAt(context.Background(), make([]byte, 64<<10), 0) },
		"map":       func(v *Volume) { v.MapRead(0, 4096, new(frontends.Plan)) },
		"long map":  func(v *Volume) { v.MapRead(0, 64<<10, new(frontends.Plan)) },
		"odd write": func(v *Volume) {
			new(guard).take(v, [2]uint64{0, 0})
		},
		"append": func(v *Volume) {
			_, _ = v.append(&op{recs: []wlog.Record{{Kind: wlog.KindZero, Count: 1}}}, nil) // without its span
		},
	}
	for name, do := range cases {
		t.Run(name, func(t *testing.T) {
			s := newSickbed(t)
			s.sick.mu.m.insert(0, 1, nowhere)
			func() {
				defer func() {
					p := recover()
					if p == nil {
						t.Fatal("no panic")
					}
					_ = s.sick.Panicked(p, nil)
				}()
				do(s.sick)
			}()
			s.ended()
			s.others()
		})
	}
}
