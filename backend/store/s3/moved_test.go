package s3

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/storetest"
)

// watched is a context that counts how often store.Moved was called with it, which looks there for whom to tell.
type watched struct {
	context.Context
	moved *atomic.Int32
}

func (w watched) Value(key any) any {
	if fmt.Sprintf("%T", key) == "store.pulseKey" {
		w.moved.Add(1)
	}
	return w.Context.Value(key)
}

// TestMovingBytesAreReported: without that a body that takes minutes over a slow line would be given up, again and again.
func TestMovingBytesAreReported(t *testing.T) {
	server := storetest.StartVersitygw(t)
	s := openEndpoint(t, server.Bucket, server.Endpoint)
	ctx := watched{t.Context(), new(atomic.Int32)}
	if _, err := s.Put(ctx, "a/b", storetest.Random(1, 1<<20), store.Condition{}); err != nil || ctx.moved.Load() < 2 {
		t.Errorf("put: reported %d times, %v", ctx.moved.Load(), err)
	}
	ctx.moved.Store(0)
	if _, _, err := s.Get(ctx, "a/b", store.Range{}); err != nil || ctx.moved.Load() < 2 {
		t.Errorf("get: reported %d times, %v", ctx.moved.Load(), err)
	}
}
