package exports

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/volume"
)

// TestStoreThatTakesNoWrites: who waits for uploads to a store that answers reads only gives up in time; who reads doesn't,
// nor who waits for one upload over a slow line after another has failed.
func TestStoreThatTakesNoWrites(t *testing.T) {
	const timeout = time.Minute
	hour := func(ctx context.Context) (struct{}, error) {
		select {
		case <-time.After(time.Hour):
			return struct{}{}, nil
		case <-ctx.Done():
			return struct{}{}, ctx.Err()
		}
	}
	for _, c := range []struct {
		name    string
		failing time.Duration // writes failed this long before the operation, and go on to
		every   time.Duration // 0: they failed once, as it began
		run     func(context.Context, *Manager) (struct{}, error)
		atMost  time.Duration // until it gives up; 0: it doesn't
	}{
		{"upload", 0, 15 * time.Second, func(ctx context.Context, m *Manager) (struct{}, error) { return boundedUploads(ctx, m, hour) }, timeout + 16*time.Second},
		{"failing before", time.Hour, 15 * time.Second, func(ctx context.Context, m *Manager) (struct{}, error) { return boundedUploads(ctx, m, hour) }, timeout + 16*time.Second},
		{"slow line", 0, 0, func(ctx context.Context, m *Manager) (struct{}, error) { return boundedUploads(ctx, m, hour) }, 0},
		{"uploads of others", time.Hour, 15 * time.Second, func(ctx context.Context, m *Manager) (struct{}, error) { return bounded(ctx, m, hour) }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				var refused atomic.Int64 // after begin
				m := &Manager{o: Options{Host: &volume.Host{Store: mem.New()}, SyncTimeout: timeout, Health: func() Health {
					return Health{Text: "takes no writes since then", Refusing: begin.Add(-c.failing), Refused: begin.Add(time.Duration(refused.Load()))}
				}}}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.every > 0 {
					go func() {
						for ctx.Err() == nil {
							refused.Store(int64(time.Since(begin)))
							select {
							case <-time.After(c.every):
							case <-ctx.Done():
							}
						}
					}()
				}
				_, err := c.run(ctx, m)
				took := time.Since(begin)
				if c.atMost == 0 {
					if err != nil {
						t.Errorf("after %s: %v", took, err)
					}
					return
				}
				e := (*api.Error)(nil)
				if !errors.As(err, &e) || e.Code != api.CodeOffline || !strings.Contains(e.Message, "has taken no writes for 1m0s (takes no writes since") {
					t.Errorf("after %s: %v", took, err)
				}
				if took < timeout || took > c.atMost {
					t.Errorf("it gave up after %s", took)
				}
			})
		})
	}
}
