package wlog

import (
	"context"
	"testing"

	"glidefs-appliance/backend/vfs"
)

func (l *testLog) reserve(n int64) []Span {
	l.t.Helper()
	spans, err := l.Reserve(context.Background(), n, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	return spans
}

// TestSpread: a large write does not wait for another one's segment, a small one and one that comes alone stay where the
// last one went, and no third segment is opened.
func TestSpread(t *testing.T) {
	o := testOptions(vfs.NewCrash())
	o.SegmentSize = 4 << 20
	l := startLog(t, o, 1)
	defer l.close()
	const large = spreadFrom
	half, after := l.reserve(2<<20), l.reserve(blockSize)
	l.Abandon(half) // it is not the last: its room is not given back
	l.Abandon(after)
	a := l.reserve(large)
	defer l.Abandon(a)
	waitFor(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.ready) > 0
	})
	small := l.reserve(large - blockSize)
	defer l.Abandon(small)
	if small[0].Seg != a[0].Seg {
		t.Error("a small write was spread")
	}
	seen := map[*Segment]bool{}
	for range 8 {
		s := l.reserve(large)
		seen[s[0].Seg] = true
		defer l.Abandon(s)
	}
	if len(seen) != 2 || !seen[a[0].Seg] {
		t.Errorf("eight writes at once went to %d segments, want 2", len(seen))
	}
}

// TestSpreadAlone: a writer that has one request under way at a time fills one segment after the other.
func TestSpreadAlone(t *testing.T) {
	o := testOptions(vfs.NewCrash())
	l := startLog(t, o, 1)
	defer l.close()
	l.write(0, 1, true)
	seg := l.cur
	for i := 0; l.cur == seg; i++ {
		l.write(uint64(i), 1, true)
	}
	if l.side != nil {
		t.Error("a second segment is open")
	}
}

// TestSpreadGivesBack: a request that needs all that a log is sure to get has both open segments once the store has what is
// in them.
func TestSpreadGivesBack(t *testing.T) {
	o := testOptions(vfs.NewCrash())
	o.Budget = NewBudget(2 * minSegment)
	l := startLog(t, o, 1)
	defer l.close()
	slow := l.reserve(blockSize)
	waitFor(t, func() bool {
		l.put(l.reserve(blockSize), 1, 1, true)
		l.settleAll()
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.side != nil && l.side.used > 0 && l.cur.used > 0
	})
	l.put(slow, 2, 2, true)
	done := l.reserveLater(l.MaxReserve())
	l.settleAll()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestSpreadPastFull: where both open segments are full the next write goes to a third, and to nothing else.
func TestSpreadPastFull(t *testing.T) {
	l := startLog(t, testOptions(vfs.NewCrash()), 1)
	defer l.close()
	a := l.reserve(8 * blockSize)
	defer l.Abandon(a)
	waitFor(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.ready) > 0
	})
	room := capacity(minSegment)
	b := l.reserve(room)
	defer l.Abandon(b)
	defer l.Abandon(l.reserve(room - 8*blockSize))
	l.mu.Lock()
	full := l.cur.room() == 0 && l.side.room() == 0
	l.mu.Unlock()
	if !full || b[0].Seg == a[0].Seg {
		t.Fatalf("two full segments were wanted: %v, %v", a, b)
	}
	c := l.reserve(blockSize)
	defer l.Abandon(c)
	if len(c) != 1 || c[0].Len != blockSize || c[0].Seg == a[0].Seg || c[0].Seg == b[0].Seg {
		t.Errorf("the next block lies in %v", c)
	}
}
