package volume

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"glidefs-appliance/backend/gc"
	"glidefs-appliance/backend/store"
)

// preempted is a store in which something happens right before the GET of a part of a pack for a guest is done.
type preempted struct {
	store.Store
	by func() // once
}

func (p *preempted) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	if store.ClassOf(ctx) == store.Guest && strings.HasPrefix(key, "packs/") && p.by != nil {
		by := p.by
		p.by = nil
		by()
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
		p.by = func() {
			for range 3 { // over what is there already, so that the whole disk is rewritten
				if err := a.v.WriteAt(t.Context(), a.now, 0, false); err != nil {
					t.Error(err)
				}
				a.sync()
			}
			a.v.compactNow(t)
			swept = collect(t, a.st).Deleted
		}
		if err := a.v.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, a.now[:len(got)]) {
			t.Errorf("wrong from byte %d, %v", firstDiff(got, a.now), err)
		}
		if swept == 0 {
			t.Error("nothing was swept under the reader")
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
