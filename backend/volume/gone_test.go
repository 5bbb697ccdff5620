package volume

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"glidefs-appliance/backend/gc"
	"glidefs-appliance/backend/store"
)

// preempted is a store in which something happens right before a GET of a pack, or of a part of it, is done.
type preempted struct {
	store.Store
	class store.Class

	mu sync.Mutex
	by func() // once
}

func (p *preempted) take() (by func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	by, p.by = p.by, nil
	return by
}

func (p *preempted) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	if store.ClassOf(ctx) == p.class && strings.HasPrefix(key, "packs/") {
		if by := p.take(); by != nil {
			by()
		}
	}
	return p.Store.Get(ctx, key, r)
}

// TestReadOfWhatIsSweptMeanwhile: while a cold read is on its way, compaction merges the packs that it looks in and a
// collector takes them away. The reader looks where the data is now.
func TestReadOfWhatIsSweptMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newSites(t)
		p := &preempted{Store: a.st}
		a.st, a.cache, a.tuning.TailPacks, a.tuning.Readahead, a.tuning.InlineBytes = p, 0, 1, 1, 1
		a.attach(OpenOptions{Create: siteSize})
		a.write(60)
		a.detach()
		a.v = a.rig.open(t, "d", OpenOptions{})
		defer a.die()
		got := make([]byte, 64<<10)
		if err := a.v.ReadAt(t.Context(), got, 0); err != nil { // the indexes are in memory from now on
			t.Fatal(err)
		}
		swept := 0
		p.by = func() { swept = a.replaced() }
		if err := a.v.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, a.now[:len(got)]) {
			t.Errorf("wrong from byte %d, %v", firstDiff(got, a.now), err)
		}
		if swept == 0 {
			t.Error("nothing was swept under the reader")
		}
	})
}

// replaced writes what is there once more, and has every object replaced and swept; it returns how many.
func (s *site) replaced() int {
	for range 3 {
		if err := s.v.WriteAt(s.t.Context(), s.now, 0, false); err != nil {
			s.t.Error(err)
		}
		s.sync()
	}
	s.v.compactNow(s.t)
	return collect(s.t, s.st).Deleted
}

// TestVerifyOfADiskInUse: what is merged and swept while Verify looks is not damage.
func TestVerifyOfADiskInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newSites(t)
		p := &preempted{Store: a.st, class: store.Admin}
		a.st, a.tuning.TailPacks, a.tuning.InlineBytes = p, 1, 1
		a.attach(OpenOptions{Create: siteSize})
		defer a.die()
		a.write(60)
		a.sync()
		swept := 0
		p.by = func() { swept = a.replaced() }
		rep, err := Verify(t.Context(), a.h, "d", nil)
		if err != nil || len(rep.Damage) > 0 || swept == 0 {
			t.Errorf("with %d objects swept: %+v, %v", swept, rep, err)
		}
	})
}

// TestDeletedUnderItsReader: a disk is deleted while another host reads it, and perhaps one of the same name is made: the
// reader gets errors, and never the other's bytes.
func TestDeletedUnderItsReader(t *testing.T) {
	for _, again := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a, b := newSites(t)
			b.cache, a.tuning.InlineBytes = 0, 1 // no data rides in the manifest
			a.attach(OpenOptions{Create: siteSize})
			a.write(60)
			a.detach()
			want, failed := bytes.Clone(a.now), 0
			b.v = b.rig.open(t, "d", OpenOptions{ReadOnly: true})
			defer b.die()
			if err := gc.Trash(t.Context(), a.st, "d"); err != nil {
				t.Fatal(err)
			}
			collect(t, a.st)
			if again {
				a.attach(OpenOptions{Create: siteSize})
				a.write(60)
				a.sync()
				defer a.die()
			}
			p := make([]byte, 4096)
			for off := int64(0); off < siteSize; off += 4096 { // in order, as what is read ahead
				err := b.v.ReadAt(t.Context(), p, off)
				if err == nil && !bytes.Equal(p, want[off:off+4096]) || err != nil && !errors.Is(err, store.ErrNotFound) {
					t.Fatalf("read %d gives %q, %v", off, p[:2], err)
				}
				if err != nil {
					failed++
				}
			}
			synctest.Wait()
			if failed == 0 {
				t.Errorf("again %v: nothing of the disk was gone", again)
			}
		})
	}
}
