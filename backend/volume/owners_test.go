package volume

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"glidefs-appliance/backend/gc"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/vfs"
	"glidefs-appliance/frontends"
)

// site is a host with the disk "d" of a shared store; its writes are stamped with its letter and a number.
type site struct {
	t *testing.T
	*rig
	v      *Volume
	letter byte
	writes byte
	now    []byte // the disk as this host left it
}

const siteSize = 256 << 10

func newSites(t *testing.T) (a, b *site) {
	st := mem.New()
	for i, s := range []**site{&a, &b} {
		*s = &site{t: t, rig: newRig(vfs.NewCrash(), "/state"), letter: 'A' + byte(i)}
		(*s).st, (*s).state = st, byte(i+1)
	}
	return a, b
}

func (s *site) tryOpen(o OpenOptions) (err error) {
	s.t.Helper()
	if s.h == nil {
		s.start(s.t)
	}
	if s.v, err = Open(s.t.Context(), s.h, "d", o); err != nil {
		return err
	}
	s.now = make([]byte, s.v.Size())
	return s.v.ReadAt(s.t.Context(), s.now, 0)
}

func (s *site) attach(o OpenOptions) {
	s.t.Helper()
	if err := s.tryOpen(o); err != nil {
		s.t.Fatalf("host %c: %v", s.letter, err)
	}
}

// write writes n times somewhere.
func (s *site) write(n int) {
	s.t.Helper()
	rng := rand.New(rand.NewPCG(uint64(s.letter), uint64(s.writes)))
	for range n {
		s.writes++
		p := bytes.Repeat([]byte{s.letter, s.writes}, 4096)
		off := rng.Int64N(siteSize/4096-1) * 4096
		copy(s.now[off:], p)
		if err := s.v.WriteAt(s.t.Context(), p, off, false); err != nil {
			s.t.Fatal(err)
		}
	}
}

// writeUnsent writes what no upload that is on its way takes along, and counts it.
func (s *site) writeUnsent() uint64 {
	s.sync()
	s.v.Pause(true)
	s.write(3)
	return s.v.Status().DirtyWrites
}

func (s *site) sync() { s.t.Helper(); mustSync(s.t, s.v) }

func (s *site) detach() {
	s.t.Helper()
	s.sync()
	s.close(s.t, s.v)
}

func (s *site) die() { s.kill(s.v, false) }

// backup is the host's local disk as it is now; restore puts it back.
func (s *site) backup() *vfs.Crash   { return s.fs.(*vfs.Crash).Kill() }
func (s *site) restore(b *vfs.Crash) { s.fs = b.Kill() }

// is checks what the disk holds.
func (s *site) is(want []byte, whose string) {
	s.t.Helper()
	if i := firstDiff(s.now, want); i >= 0 {
		s.t.Fatalf("host %c sees %q at %d, want %s's %q", s.letter, s.now[i:i+2], i, whose, want[i:i+2])
	}
}

// isForeign checks that the host's log is refused, with that many writes only in it.
func (s *site) isForeign(err error, writes uint64) {
	s.t.Helper()
	var foreign *LogForeignError
	if !errors.As(err, &foreign) || foreign.Writes != writes {
		s.t.Fatalf("host %c: %v, want a foreign log with %d writes", s.letter, err, writes)
	}
}

// salvaged makes a disk of the host's log, compares, and abandons the log.
func (s *site) salvaged(want []byte, writes uint64) {
	s.t.Helper()
	ctx := s.t.Context()
	var before, size int64
	err := Salvage(ctx, s.h, "d", "rescue", func(done, total int64) {
		if done <= before || done > total {
			s.t.Errorf("%d of %d bytes after %d", done, total, before)
		}
		before, size = done, total
	})
	if err != nil || before != size || writes > 0 && size == 0 {
		s.t.Fatalf("%d of %d bytes: %v", before, size, err)
	}
	if err := Salvage(ctx, s.h, "d", "rescue", func(int64, int64) {}); !errors.Is(err, ErrExists) {
		s.t.Errorf("salvage over a disk: %v", err)
	}
	v := s.rig.open(s.t, "rescue", OpenOptions{})
	got := make([]byte, v.Size())
	if err := v.ReadAt(ctx, got, 0); err != nil || firstDiff(got, want) >= 0 {
		s.t.Fatalf("salvaged: wrong from byte %d, %v", firstDiff(got, want), err)
	}
	if err := v.Close(ctx); err != nil {
		s.t.Fatal(err)
	}
	for _, dry := range []bool{true, true, false} {
		if n, err := Abandon(ctx, s.h, "d", dry); err != nil || n != writes {
			s.t.Fatalf("abandon (dry %v): %d writes, %v", dry, n, err)
		}
	}
}

// A second writer is refused and told whose the disk is; a reader is not.
func TestSecondWriterIsRefused(t *testing.T) {
	a, b := newSites(t)
	a.attach(OpenOptions{Create: siteSize})
	a.write(5)
	a.sync()
	synced := bytes.Clone(a.now)
	a.write(5)
	var owned *OwnedError
	err := b.tryOpen(OpenOptions{})
	if !errors.As(err, &owned) || owned.Host != "host1" || owned.Since.IsZero() || !owned.Last.Equal(a.v.Status().BarrierTime) {
		t.Fatalf("second writer: %v %+v", err, owned)
	}
	b.attach(OpenOptions{ReadOnly: true})
	b.is(synced, "the store")
	if err := b.v.WriteAt(t.Context(), make([]byte, 4096), 0, false); !errors.Is(err, frontends.ErrReadOnly) {
		t.Errorf("write to a read-only disk: %v", err)
	}
	b.close(t, b.v)
	a.write(1) // a goes on
	a.detach()
	b.attach(OpenOptions{})
	b.is(a.now, "A")
	b.detach()
}

// After a take-over the first writer learns of it at its next manifest PUT: from then on every operation fails, it has not
// overwritten anything, and its log is kept until it is salvaged or abandoned (P5).
func TestTakeoverFences(t *testing.T) {
	for name, crash := range map[string]bool{"closed": false, "killed": true} {
		t.Run(name, func(t *testing.T) { testTakeover(t, crash) })
	}
}

func testTakeover(t *testing.T, crash bool) {
	a, b := newSites(t)
	a.attach(OpenOptions{Create: siteSize})
	a.write(20)
	a.sync()
	synced := bytes.Clone(a.now)
	a.write(7)
	b.attach(OpenOptions{Takeover: true})
	b.is(synced, "A's synced")
	b.write(9)
	b.sync()
	a.write(2) // it does not know yet
	mine, ctx := bytes.Clone(a.now), t.Context()
	if err := a.v.Sync(ctx, nil); !errors.Is(err, ErrFenced) {
		t.Fatalf("first PUT after the take-over: %v", err)
	}
	everythingFails(t, a.v, ErrFenced)
	if s := a.v.Status(); s.State != "fenced" || s.DirtyWrites != 9 {
		t.Errorf("%+v", s)
	}
	if crash {
		a.die()
	} else if err := a.v.Close(ctx); !errors.Is(err, ErrFenced) {
		t.Errorf("close: %v", err)
	} else {
		_, a.h = a.c.Close(), nil
	}
	b.write(1)
	b.sync()

	var owned *OwnedError
	if err := a.tryOpen(OpenOptions{}); !errors.As(err, &owned) || owned.Host != "host2" {
		t.Errorf("the fenced one comes back: %v", err)
	}
	a.isForeign(a.tryOpen(OpenOptions{Takeover: true}), 9)
	a.salvaged(mine, 9)
	cell, err := manifest.Read(ctx, b.st, "d")
	if err != nil || cell.Current().Owner.State != b.h.Owner.State {
		t.Fatalf("owner %+v, %v", cell.Current().Owner, err)
	}
	b.detach()
	a.attach(OpenOptions{})
	a.is(b.now, "B")
	a.die()
}

func everythingFails(t *testing.T, v *Volume, want error) {
	t.Helper()
	ctx, p := context.Background(), make([]byte, 4096)
	for name, err := range map[string]error{
		"read": v.ReadAt(ctx, p, 0), "write": v.WriteAt(ctx, p, 0, false), "fua": v.WriteAt(ctx, p, 0, true), "odd": v.WriteAt(ctx, p[:5], 3, false),
		"flush": v.Flush(ctx), "discard": v.Discard(ctx, 0, 4096), "zeroes": v.WriteZeroes(ctx, 0, 4096), "sync": v.Sync(ctx, nil), "grow": v.Grow(ctx, 2*siteSize),
	} {
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	var plan frontends.Plan
	if v.MapRead(0, 4096, &plan) {
		t.Error("MapRead goes on")
	}
}

// TestAwayAndBack: a disk is written here, then there, then here again. However this host's state dir comes back, what it
// shows is all of the other's, or nothing.
func TestAwayAndBack(t *testing.T) {
	for name, trip := range map[string]func(a, b *site){
		"detached in order": func(a, b *site) {
			a.detach()
			b.visit()
			a.attach(OpenOptions{})
		},
		"state dir from a backup, all of it synced": func(a, b *site) {
			a.sync()
			bak := a.backup()
			a.detach()
			b.visit()
			a.restore(bak)
			a.attach(OpenOptions{})
		},
		"state dir from a backup, some not synced": func(a, b *site) {
			a.sync()
			a.write(4)
			bak := a.backup()
			a.detach()
			b.visit()
			a.restore(bak)
			a.isForeign(a.tryOpen(OpenOptions{}), 4)
			a.abandon(4)
			a.attach(OpenOptions{})
		},
		"state dir from a backup, then cut": func(a, b *site) {
			a.write(4)
			bak := a.backup()
			a.detach()
			b.visit()
			a.fs = bak.CutAt(bak.Ops(), rand.New(rand.NewPCG(1, 1)))
			a.boot += "+"
			if err := a.tryOpen(OpenOptions{}); err != nil {
				var foreign *LogForeignError
				if !errors.As(err, &foreign) {
					a.t.Fatal(err)
				}
				a.abandon(foreign.Writes)
				a.attach(OpenOptions{})
			}
		},
		"taken over and given back": func(a, b *site) {
			a.sync()
			a.die()
			b.attach(OpenOptions{Takeover: true})
			b.write(10)
			b.detach()
			a.attach(OpenOptions{})
		},
		"taken over and given back, with unsent writes": func(a, b *site) {
			unsent := a.writeUnsent()
			mine := bytes.Clone(a.now)
			a.die()
			b.attach(OpenOptions{Takeover: true})
			b.write(10)
			b.detach()
			a.isForeign(a.tryOpen(OpenOptions{}), unsent)
			a.salvaged(mine, unsent)
			a.attach(OpenOptions{})
		},
		"deleted and made anew": func(a, b *site) {
			a.sync()
			a.die()
			if err := gc.Trash(a.t.Context(), a.st, "d"); err != nil {
				a.t.Fatal(err)
			}
			b.attach(OpenOptions{Create: siteSize})
			b.write(10)
			b.detach()
			a.attach(OpenOptions{})
		},
		"deleted and made anew, with unsent writes": func(a, b *site) {
			unsent := a.writeUnsent()
			mine := bytes.Clone(a.now)
			a.die()
			if err := gc.Trash(a.t.Context(), a.st, "d"); err != nil {
				a.t.Fatal(err)
			}
			a.isForeign(a.tryOpen(OpenOptions{Create: siteSize}), unsent)
			b.attach(OpenOptions{Create: siteSize})
			b.write(10)
			b.detach()
			a.isForeign(a.tryOpen(OpenOptions{}), unsent)
			a.salvaged(mine, unsent)
			a.attach(OpenOptions{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newSites(t)
			a.attach(OpenOptions{Create: siteSize})
			a.write(20)
			trip(a, b)
			a.is(b.now, "B")
			a.write(3)
			a.detach()
			b.attach(OpenOptions{})
			b.is(a.now, "A")
			b.detach()
		})
	}
}

func (s *site) visit() {
	s.attach(OpenOptions{})
	s.write(10)
	s.detach()
}

func (s *site) abandon(writes uint64) {
	s.t.Helper()
	if n, err := Abandon(s.t.Context(), s.h, "d", false); err != nil || n != writes {
		s.t.Fatalf("abandon: %d writes, %v, want %d", n, err, writes)
	}
}

// TestOldCopies: the same host comes back with an older state dir, or finds an older manifest. Nothing is mixed.
func TestOldCopies(t *testing.T) {
	t.Run("state dir from a backup", func(t *testing.T) {
		a, _ := newSites(t)
		a.attach(OpenOptions{Create: siteSize})
		a.write(20)
		a.sync()
		a.write(3)
		bak := a.backup()
		a.write(5)
		a.sync()
		newer := bytes.Clone(a.now)
		a.die()
		a.restore(bak)
		a.isForeign(a.tryOpen(OpenOptions{}), 3)
		a.abandon(3)
		a.attach(OpenOptions{})
		a.is(newer, "the store")
		a.die()
	})
	t.Run("two copies of a state dir", func(t *testing.T) {
		a, twin := newSites(t)
		a.attach(OpenOptions{Create: siteSize})
		a.write(20)
		a.sync()
		a.write(3)
		twin.state, twin.letter = a.state, 'T'
		twin.restore(a.backup())
		twin.attach(OpenOptions{})
		twin.is(a.now, "A")
		twin.write(4)
		twin.sync()
		a.write(1)
		if err := a.v.Sync(t.Context(), nil); !errors.Is(err, ErrFenced) {
			t.Errorf("the original goes on: %v", err)
		}
		a.die()
		a.isForeign(a.tryOpen(OpenOptions{}), 4)
		twin.detach()
	})
	t.Run("a twin that has uploaded nothing", func(t *testing.T) {
		a, twin := newSites(t)
		a.attach(OpenOptions{Create: siteSize})
		a.write(20)
		a.sync()
		a.write(3)
		twin.state, twin.letter = a.state, 'T'
		twin.restore(a.backup())
		twin.attach(OpenOptions{})
		a.die()
		a.isForeign(a.tryOpen(OpenOptions{}), 3)
		twin.detach()
	})
	for _, tt := range []struct {
		name         string
		before, more int
	}{{"its barrier is in the log", 20, 5}, {"its barrier was recycled", 20, 200}, {"it is from the beginning", 0, 200}} {
		t.Run("manifest from a backup, "+tt.name, func(t *testing.T) { testOldManifest(t, tt.before, tt.more) })
	}
}

// testOldManifest: the log goes on from an older manifest if it still has all that came after it; otherwise it is refused.
func testOldManifest(t *testing.T, before, more int) {
	a, _ := newSites(t)
	a.attach(OpenOptions{Create: siteSize})
	a.write(before)
	a.sync()
	older := bytes.Clone(a.now)
	raw, _, err := a.st.Get(t.Context(), manifest.Key("d"), store.Range{})
	if err != nil {
		t.Fatal(err)
	}
	a.write(more)
	a.sync()
	a.write(3)
	newest := a.now
	a.die()
	if _, err := a.st.Put(t.Context(), manifest.Key("d"), raw, store.Condition{}); err != nil {
		t.Fatal(err)
	}
	err = a.tryOpen(OpenOptions{})
	if more < 20 {
		if err != nil {
			t.Fatal(err)
		}
		a.is(newest, "its own")
	} else {
		a.isForeign(err, 3)
		a.abandon(3)
		a.attach(OpenOptions{})
		a.is(older, "the store")
	}
	a.die()
}

// A disk that is deleted under its writer is fenced like one that is taken over.
func TestDeletedUnderItsWriter(t *testing.T) {
	a, _ := newSites(t)
	a.attach(OpenOptions{Create: siteSize})
	a.write(5)
	a.sync()
	if err := gc.Trash(t.Context(), a.st, "d"); err != nil {
		t.Fatal(err)
	}
	a.write(2)
	mine := a.now
	if err := a.v.Sync(t.Context(), nil); !errors.Is(err, ErrFenced) {
		t.Fatalf("sync: %v", err)
	}
	everythingFails(t, a.v, ErrFenced)
	a.die()
	if err := a.tryOpen(OpenOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("open: %v", err)
	}
	a.isForeign(a.tryOpen(OpenOptions{Create: siteSize}), 2)
	a.salvaged(mine, 2)
}

// TestStrandedLogIsLetGo: counting or saving what is only in a log leaves it as it was, its share of the budget included;
// dropping it gives that back.
func TestStrandedLogIsLetGo(t *testing.T) {
	a, b := newSites(t)
	a.attach(OpenOptions{Create: siteSize})
	a.writeUnsent()
	a.die()
	b.attach(OpenOptions{Takeover: true})
	b.die()
	h := a.start(t)
	if _, err := Abandon(t.Context(), h, "d", true); err != nil {
		t.Fatal(err)
	}
	held := h.Budget.Used()
	for range 2 {
		if err := Salvage(t.Context(), h, "d", "rescue", func(int64, int64) {}); err != nil && !errors.Is(err, ErrExists) {
			t.Fatal(err)
		}
		if _, err := Abandon(t.Context(), h, "d", true); err != nil {
			t.Fatal(err)
		}
	}
	if used := h.Budget.Used(); used != held || held == 0 {
		t.Errorf("the log has %d bytes, the budget counts %d", held, used)
	}
	if _, err := Abandon(t.Context(), h, "d", false); err != nil || h.Budget.Used() != 0 {
		t.Errorf("abandoned: %v, the budget counts %d bytes", err, h.Budget.Used())
	}
}

// A log that goes on from an instant which the store no longer has in whole is not made a disk: that would have holes, and
// keep collectors from deleting anything. Neither what is in the clean cache nor what is in memory hides that.
func TestSalvageNeedsTheWholeInstant(t *testing.T) {
	for _, levels := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a, b := newSites(t)
			a.tuning.InlineBytes, a.tuning.TailPacks, a.tuning.NoCompaction, b.tuning.TailPacks = 1, 1, true, 1
			a.attach(OpenOptions{Create: siteSize})
			a.write(60)
			unsent := a.writeUnsent()
			if levels {
				a.v.compactNow(t)
			}
			man := a.v.currentView().man
			if (len(man.Levels) > 0) != levels {
				t.Fatalf("%d levels, %d packs in the tail", len(man.Levels), len(man.Tail))
			}
			if err := a.v.ReadAt(t.Context(), a.now, 0); err != nil {
				t.Fatal(err)
			}
			a.v.Kill(ErrClosed)
			b.attach(OpenOptions{Takeover: true})
			for range 3 {
				if err := b.v.WriteAt(t.Context(), b.now, 0, false); err != nil {
					t.Fatal(err)
				}
				b.sync()
			}
			b.v.compactNow(t)
			if collect(t, b.st).Deleted == 0 {
				t.Fatal("nothing was swept")
			}
			if err := Salvage(t.Context(), a.h, "d", "rescue", func(int64, int64) {}); !errors.Is(err, errIncomplete) {
				t.Errorf("levels %v: salvage: %v", levels, err)
			}
			collect(t, b.st) // goes on
			if _, err := manifest.Read(t.Context(), b.st, "rescue"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("levels %v: the disk is there: %v", levels, err)
			}
			a.isForeign(a.tryOpen(OpenOptions{Takeover: true}), unsent)
			_ = a.c.Close()
			b.die()
		})
	}
}
