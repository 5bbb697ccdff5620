package volume

import (
	"bytes"
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
)

// stalled is a store in which GETs of parts of packs for guests wait until it goes on; it adds up what they want.
type stalled struct {
	store.Store
	on chan struct{} // closed: it goes on

	mu    sync.Mutex
	bytes int64
	gets  int
}

func (s *stalled) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	if strings.HasPrefix(key, "packs/") && store.ClassOf(ctx) == store.Guest && r.Len >= pack.MaxFrame {
		s.mu.Lock()
		s.bytes += r.Len
		s.gets++
		s.mu.Unlock()
		<-s.on
	}
	return s.Store.Get(ctx, key, r)
}

func (s *stalled) asked() (int, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gets, s.bytes
}

// TestFloodOfColdReads: however many cold reads wait for a store, what they hold is bounded; those of one disk don't keep
// another's waiting; and all of them end.
func TestFloodOfColdReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const frames = 300
		r := newDiskRig(t)
		s := &stalled{Store: mem.New(), on: make(chan struct{})}
		r.st, r.log, r.cache = s, 64<<20, 0
		r.tuning = Tuning{UploadAge: time.Hour, InlineBytes: 1, Readahead: 1, ReadTimeout: time.Hour}
		want := make([]byte, frames*pack.MaxFrame)
		rand.NewChaCha8([32]byte{}).Read(want)
		disks := map[string]*Volume{}
		for _, name := range []string{"flooded", "calm"} {
			v := r.open(t, name, OpenOptions{Create: int64(len(want))})
			for off := 0; off < len(want); off += 1 << 20 {
				if err := v.WriteAt(t.Context(), want[off:min(off+1<<20, len(want))], int64(off), false); err != nil {
					t.Fatal(err)
				}
			}
			mustSync(t, v)
			if err := v.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			disks[name] = r.open(t, name, OpenOptions{})
		}
		var all sync.WaitGroup
		read := func(name string, frame int) {
			off := frame*pack.MaxFrame + 4096
			p := make([]byte, 4096)
			if err := disks[name].ReadAt(t.Context(), p, int64(off)); err != nil || !bytes.Equal(p, want[off:off+len(p)]) {
				t.Errorf("%s, frame %d: %v", name, frame, err)
			}
		}
		for i := range frames {
			all.Go(func() { read("flooded", i) })
		}
		synctest.Wait()
		gets, held := s.asked()
		if held *= 2; held > readMemory/2 || held < readMemory/4 { // each is held as stored and as read
			t.Errorf("%d bytes are held by one disk", held)
		}
		all.Go(func() { read("calm", 0) })
		synctest.Wait()
		if n, _ := s.asked(); n != gets+1 {
			t.Error("a flood of reads of one disk keeps another's waiting")
		}
		close(s.on)
		all.Wait()
		for _, v := range disks {
			if err := v.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		_ = r.c.Close()
	})
}
