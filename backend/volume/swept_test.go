package volume

import (
	"bytes"
	"context"
	"errors"
	"path"
	"strings"
	"testing"
	"testing/synctest"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
	"glidefs-appliance/backend/vfs"
)

// swept is a disk of which nothing is here, a step of compaction due, and a collector that is quick.
type swept struct {
	t    *testing.T
	r    *rig
	fs   *vfs.Fault
	st   *storetest.Fault
	v    *Volume
	want []byte
}

func newSwept(t *testing.T) *swept {
	s := &swept{t: t, fs: vfs.NewFault(vfs.NewCrash()), st: storetest.NewFault(mem.New())}
	s.r = newRig(s.fs, "/state")
	s.r.st, s.r.tuning.NoCompaction, s.r.tuning.InlineBytes, s.r.tuning.TailPacks = s.st, true, 1, 1
	s.v = s.r.open(t, "a", OpenOptions{Create: 1 << 20})
	for i := range 3 {
		p := blockOf(i, 1)
		if err := s.v.WriteAt(t.Context(), p, int64(i)*4096, false); err != nil {
			t.Fatal(err)
		}
		mustSync(t, s.v)
		s.want = append(s.want, p...)
	}
	s.r.close(t, s.v)
	if err := s.fs.RemoveAll("/state"); err != nil {
		t.Fatal(err)
	}
	s.v = s.r.open(t, "a", OpenOptions{})
	t.Cleanup(func() { s.r.kill(s.v, false) })
	return s
}

// sweep deletes the packs that the manifest in the store does not name.
func (s *swept) sweep() {
	s.t.Helper()
	ctx, st := s.t.Context(), s.st.Inner()
	cell, err := manifest.Read(ctx, st, "a")
	if err != nil {
		s.t.Fatal(err)
	}
	live := map[pack.Hash]bool{}
	if err := s.v.eachPack(ctx, cell.Current(), func(r pack.Ref) error { live[r.Hash] = true; return nil }); err != nil {
		s.t.Fatal(err)
	}
	gone := 0
	for info, err := range st.List(ctx, "packs/", "") {
		if err != nil {
			s.t.Fatal(err)
		}
		if h, err := pack.ParseHash(path.Base(info.Key)); err == nil && !live[h] {
			gone++
			if err := st.Delete(ctx, info.Key); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	if gone == 0 {
		s.t.Fatal("the merge left no garbage")
	}
}

// read reads all of it in the background.
func (s *swept) read() chan error {
	done := make(chan error, 1)
	go func() {
		got := make([]byte, len(s.want))
		err := s.v.ReadAt(s.t.Context(), got, 0)
		if err == nil && !bytes.Equal(got, s.want) {
			err = errors.New("something else is there")
		}
		done <- err
	}()
	return done
}

// TestSweptBeforeTheViewIsKnown: an update is in the store a little before it is known here, while the manifest is kept
// beside the log. Reads of packs that were collected in between wait for it.
func TestSweptBeforeTheViewIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwept(t)
		resume := make(chan struct{})
		s.fs.Before(func(op vfs.Op, name string) error {
			if op == vfs.OpRename && strings.Contains(name, keptManifest) {
				<-resume
			}
			return nil
		})
		merged := make(chan struct{})
		go func() { s.v.compactNow(t); close(merged) }()
		synctest.Wait()
		s.sweep()
		done := s.read()
		synctest.Wait()
		close(resume)
		if err := <-done; err != nil {
			t.Error(err)
		}
		<-merged
		if n := s.r.h.Counters().Damaged; n != 0 {
			t.Errorf("%d objects count as damaged", n)
		}
	})
}

// TestSweptBeforeTheUpdateIsSettled: nobody here knows whether the update took place, but the collector does. Neither reads
// nor compaction take what it swept for lost.
func TestSweptBeforeTheUpdateIsSettled(t *testing.T) {
	for name, after := range map[string]func(s *swept) error{
		"read":    func(s *swept) error { return <-s.read() },
		"compact": func(s *swept) error { return s.v.compact(s.t.Context()) },
	} {
		t.Run(name, func(t *testing.T) { testUnsettled(t, after) })
	}
}

func testUnsettled(t *testing.T, after func(s *swept) error) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwept(t)
		s.st.Once(storetest.On(store.OpPut, "volumes/"), storetest.AnswerLost())
		s.st.Always(storetest.On(store.OpGet, "volumes/"), storetest.Unavailable())
		ctx, cancel := context.WithTimeout(t.Context(), lostFor)
		defer cancel()
		if err := s.v.compact(ctx); !errors.Is(err, manifest.ErrUnsettled) {
			t.Fatal(err)
		}
		s.st.Clear()
		s.sweep()
		if err := errors.Join(after(s), <-s.read()); err != nil {
			t.Error(err)
		}
		if n, damaged := s.v.Status().Lost, s.r.h.Counters().Damaged; n != 0 || damaged != 0 {
			t.Errorf("%d objects count as lost, %d as damaged", n, damaged)
		}
	})
}
