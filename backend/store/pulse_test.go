package store_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
)

// silent is a store that answers when it is told to, and reports a moved byte at each tick until then.
type silent struct {
	store.Store
	answer chan struct{}
	moves  <-chan time.Time
}

func (s *silent) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	for {
		select {
		case <-s.moves:
			store.Moved(ctx)
		case <-s.answer:
			return s.Store.Get(ctx, key, r)
		}
	}
}

// TestSilenceIsSeen: a request that gets no answer shows in Health long before it ends, unless something moves.
func TestSilenceIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, moving := range []bool{false, true} {
			inner := &silent{Store: mem.New(), answer: make(chan struct{})}
			if moving {
				tick := time.NewTicker(time.Second)
				defer tick.Stop()
				inner.moves = tick.C
			}
			s := store.NewStack(inner, store.StackOptions{})
			time.Sleep(time.Hour) // idle is not silent
			begin, done := time.Now(), make(chan struct{})
			go func() {
				defer close(done)
				_, _, _ = s.Get(t.Context(), "packs/a", store.Range{}) // is not there
			}()
			time.Sleep(5 * time.Second)
			if h := s.Health(); h.State != store.HealthOK {
				t.Errorf("moving %t: %+v after a few seconds", moving, h)
			}
			time.Sleep(25 * time.Second)
			h := s.Health()
			if ok := h.State == store.HealthOK; ok != moving {
				t.Errorf("moving %t: %+v", moving, h)
			}
			if !moving && !h.Since.Equal(begin) {
				t.Errorf("silent since %s, want %s", h.Since, begin)
			}
			close(inner.answer)
			<-done
			if h := s.Health(); h.State != store.HealthOK {
				t.Errorf("moving %t: %+v after the answer", moving, h)
			}
		}
	})
}
