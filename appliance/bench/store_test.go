package bench

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"glidefs-appliance/backend/store"
)

// slow delays every request and counts PUTs.
type slow struct {
	store.Store
	delay       atomic.Int64
	puts, bytes atomic.Int64
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
	s.puts.Add(1)
	s.bytes.Add(int64(len(body)))
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
