package bench

import (
	"context"
	"iter"
	"strings"
	"sync/atomic"
	"time"

	"glidefs-appliance/backend/store"
)

// slow delays every request.
type slow struct {
	store.Store
	delay atomic.Int64
}

func (s *slow) wait(ctx context.Context) error {
	d := time.Duration(s.delay.Load())
	if d == 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slow) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	if err := s.wait(ctx); err != nil {
		return nil, store.Info{}, err
	}
	return s.Store.Get(ctx, key, r)
}

func (s *slow) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	if err := s.wait(ctx); err != nil {
		return store.Info{}, err
	}
	return s.Store.Put(ctx, key, body, c)
}

// forgetful keeps manifests and drops packs: for rows whose data stays in the log, so that rounds of it don't fill the
// memory.
type forgetful struct{ store.Store }

func (s forgetful) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	if strings.HasPrefix(key, "packs/") {
		return store.Info{Key: key, Size: int64(len(body)), ETag: "dropped", Modified: time.Now()}, nil
	}
	return s.Store.Put(ctx, key, body, c)
}

// counting counts requests of all kinds and the bytes PUT.
type counting struct {
	store.Store
	requests, running, bytes atomic.Int64
}

func (s *counting) begin() (end func()) {
	s.requests.Add(1)
	s.running.Add(1)
	return func() { s.running.Add(-1) }
}

func (s *counting) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	defer s.begin()()
	return s.Store.Get(ctx, key, r)
}

func (s *counting) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	defer s.begin()()
	s.bytes.Add(int64(len(body)))
	return s.Store.Put(ctx, key, body, c)
}

func (s *counting) Delete(ctx context.Context, key string) error {
	defer s.begin()()
	return s.Store.Delete(ctx, key)
}

func (s *counting) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	defer s.begin()()
	return s.Store.List(ctx, prefix, after)
}

func (s *counting) Now(ctx context.Context) (time.Time, error) {
	defer s.begin()()
	return s.Store.Now(ctx)
}

// idle returns once there was no request for a while.
func (s *counting) idle() {
	for before := int64(-1); before != s.requests.Load() || s.running.Load() > 0; time.Sleep(2 * time.Second) {
		before = s.requests.Load()
	}
}
