package ublk

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	const took = 50 * time.Microsecond
	for _, c := range []struct {
		name  string
		p     pace
		n     int
		limit time.Duration
	}{
		{"idle", pace{}, 1, -1},
		{"a read that the kernel answers", pace{parts: 1, linked: 1, expect: 1}, 1, -1},
		{"16 of them", pace{parts: 16, linked: 16, expect: 16}, 16, partsLimit},
		{"a silent one", pace{alone: true, expect: 1}, 1, aloneLimit},
		{"one from memory", pace{parts: 1, linked: 1, resident: 1, expect: 1}, 2, partsLimit},
		{"8 from memory", pace{parts: 8, linked: 8, resident: 8, expect: 8}, 16, took},
		{"8 from memory beside 4 that are not", pace{parts: 12, linked: 12, resident: 8, expect: 12}, 12, partsLimit},
		{"one write", pace{parts: 1, expect: 1}, 1, -1},
		{"8 writes", pace{parts: 8, expect: 1}, 4, partsLimit},
		{"8 copied", pace{expect: 8}, 8, took},
	} {
		c.p.took = took
		if n, limit := c.p.next(); n != c.n || limit != c.limit {
			t.Errorf("%s: waits for %d, at most %v; want %d, %v", c.name, n, limit, c.n, c.limit)
		}
	}
	for _, c := range []struct{ served, answered, expect int }{{1, 0, 1}, {5, 4, 5}, {2, 4, 4}, {40, 0, maxExpect}, {0, 0, 0}} {
		var p pace
		p.begin()
		p.served, p.answered = c.served, c.answered
		p.end()
		if p.expect != c.expect {
			t.Errorf("after %d requests and %d answers %d are expected, want %d", c.served, c.answered, p.expect, c.expect)
		}
	}
}
