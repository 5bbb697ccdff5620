package volume

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
)

// crowd lets no read of a manifest go on before n wait, or the last ones do.
type crowd struct {
	store.Store
	n, left int

	mu      sync.Mutex
	waiting int
	turn    chan struct{}
}

func (s *crowd) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	s.mu.Lock()
	s.waiting++
	s.left--
	turn := s.turn
	if s.waiting == s.n || s.left == 0 {
		s.waiting, s.turn = 0, make(chan struct{})
		close(turn)
	}
	s.mu.Unlock()
	select {
	case <-turn:
	case <-ctx.Done():
		return nil, store.Info{}, ctx.Err()
	}
	return s.Store.Get(ctx, key, r)
}

// TestListAtOnce: manifests are read several at a time, and the list is in order and whole.
func TestListAtOnce(t *testing.T) {
	const disks = 3*listReads + 5
	st := mem.New()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	name := func(i int) string {
		if i == 0 {
			return "disk" // its key comes after those of disk-001 and so on
		}
		return fmt.Sprintf("disk-%03d", i)
	}
	for i := range disks {
		m := &manifest.Manifest{Name: name(i), Size: 1 << 20, Sector: 4096}
		if _, err := manifest.Create(ctx, st, m); err != nil {
			t.Fatal(err)
		}
	}
	s := &crowd{Store: st, n: listReads, left: disks, turn: make(chan struct{})}
	list, err := List(ctx, s)
	if err != nil || len(list) != disks {
		t.Fatalf("%d disks, %v", len(list), err)
	}
	for i, d := range list {
		if d.Name != name(i) || d.Err != nil {
			t.Errorf("%s: %v, want %s", d.Name, d.Err, name(i))
		}
	}
}
