package store

import (
	"testing"
	"time"
)

func TestBackoffBounds(t *testing.T) {
	for _, c := range []struct {
		class    Class
		attempts int
		want     time.Duration
	}{
		{Guest, 1, 50 * time.Millisecond}, {Guest, 2, 100 * time.Millisecond}, {Guest, 7, 2 * time.Second},
		{Guest, 1000, 2 * time.Second},
		{Upload, 1, 200 * time.Millisecond}, {Upload, 5, 3200 * time.Millisecond}, {Upload, 9, 30 * time.Second},
		{GC, 1 << 40, 30 * time.Second},
	} {
		b := backoff{class: c.class, attempts: c.attempts}
		if got := b.bound(); got != c.want {
			t.Errorf("%s, attempt %d: %s, want %s", c.class, c.attempts, got, c.want)
		}
		waits := map[time.Duration]bool{}
		for range 100 {
			d := b.delay()
			if waits[d] = true; d <= 0 || d > c.want {
				t.Errorf("%s, attempt %d: waits %s", c.class, c.attempts, d)
			}
		}
		if len(waits) < 2 {
			t.Errorf("%s, attempt %d: all wait the same time", c.class, c.attempts)
		}
	}
}
