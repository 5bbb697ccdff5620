package wlog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"glidefs-appliance/backend/vfs"
)

// fill writes until the log has no room, and tells how many blocks that took.
func (l *testLog) fill() (n int) {
	l.t.Helper()
	for {
		spans, ok := l.TryReserve(blockSize, nil)
		if !ok {
			if spans = l.reserveUnlessFull(); spans == nil {
				return n
			}
		}
		l.put(spans, uint64(n), uint64(n), true)
		n++
	}
}

// reserveUnlessFull waits for a block until the maintenance has given up.
func (l *testLog) reserveUnlessFull() []Span {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan []Span, 1)
	go func() {
		spans, _ := l.Reserve(ctx, blockSize, nil)
		done <- spans
	}()
	waitFor(l.t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(done) > 0 || l.reported > 0 && !l.maint
	})
	cancel()
	spans := <-done
	l.wg.Wait()
	return spans
}

// waits starts a Reserve and returns once it waits.
func (l *testLog) waits(ctx context.Context, n int64) <-chan error {
	before := l.Waiting()
	done := make(chan error, 1)
	go func() {
		spans, err := l.Reserve(ctx, n, nil)
		l.Abandon(spans)
		done <- err
	}()
	waitFor(l.t, func() bool { return l.Waiting() > before })
	return done
}

func TestWaitEnds(t *testing.T) {
	o := testOptions(vfs.NewCrash())
	o.Budget = NewBudget(0) // two segments all the same
	l := startLog(t, o, 1)
	if n := l.fill(); n != 28 {
		t.Fatalf("%d blocks fit into two segments", n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	first, second := l.waits(ctx, blockSize), l.waits(context.Background(), blockSize)
	if _, ok := l.TryReserve(0, nil); ok {
		t.Error("a request got past those that wait")
	}
	l.flush() // does not queue behind them
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	bad := errors.New("forced detach")
	l.Kill(bad)
	if err := <-second; !errors.Is(err, bad) {
		t.Errorf("killed: %v", err)
	}
	if err := l.Close(); !errors.Is(err, bad) {
		t.Errorf("close: %v", err)
	}
	if used := o.Budget.Used(); used != 2*minSegment {
		t.Errorf("budget counts %d bytes of what is still there", used)
	}
	o.FS = o.FS.(*vfs.Crash).Kill()
	l = openLog(t, o)
	if used := o.Budget.Used(); used != 2*minSegment || l.End().Seq != 28 {
		t.Errorf("budget counts %d bytes, log ends at %d", used, l.End().Seq)
	}
	if err := l.Remove(); err != nil || o.Budget.Used() != 0 || Exists(o.FS, testDir) {
		t.Errorf("remove: %v, budget counts %d bytes", err, o.Budget.Used())
	}
}

// TestLargestRequest: with only the two segments that a log is sure of, the largest request gets through once all is
// settled, whatever is left in the current segment.
func TestLargestRequest(t *testing.T) {
	for used := range 28 {
		o := testOptions(vfs.NewCrash())
		o.Budget = NewBudget(0)
		l := startLog(t, o, 1)
		for i := range uint64(used) {
			l.write(i, i, i%3 > 0)
			if i%4 == 0 {
				l.flush() // leaves marks
			}
		}
		done := l.reserveLater(l.MaxReserve())
		if used > 0 {
			l.settleAll()
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if _, err := l.Reserve(context.Background(), l.MaxReserve()+1, nil); !errors.Is(err, ErrTooLarge) {
			t.Fatal(err)
		}
		l.close()
	}
}

func (l *testLog) reserveLater(n int64) <-chan error {
	done := make(chan error, 1)
	go func() {
		spans, err := l.Reserve(context.Background(), n, nil)
		l.Abandon(spans)
		done <- err
	}()
	return done
}

// TestMarksDoNotKeepSegments: the last record of a full log is a mark that no barrier will ever cover.
func TestMarksDoNotKeepSegments(t *testing.T) {
	o := testOptions(vfs.NewCrash())
	o.Budget = NewBudget(0)
	l := startLog(t, o, 1)
	l.fill()
	l.write0()
	b := l.LastBarrier()
	l.flush()
	if err := l.Settle(b); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		l.write(1, 1, false)
		l.flush()
		b := l.LastBarrier()
		if err := l.Settle(b); err != nil {
			t.Fatal(err)
		}
	}
	l.close()
}

// write0 appends a record that recovery needs a mark for, in what slots are left.
func (l *testLog) write0() {
	if spans, ok := l.TryReserve(0, nil); ok {
		_ = l.Commit(l.Append([]Record{{Kind: KindWrite, Flags: FlagEnd}}, spans))
	}
}

// TestReaderKeepsSegment: an evicted segment is not written again before its last reader is gone.
func TestReaderKeepsSegment(t *testing.T) {
	o := testOptions(vfs.NewCrash())
	o.Budget = NewBudget(0)
	var evicted []uint32
	o.Evict = func(s *Segment) { evicted = append(evicted, s.Number()) }
	l := startLog(t, o, 1)
	l.fill()
	s := l.Acquire(0)
	l.settleAll()
	done := l.waits(context.Background(), 15*blockSize)
	select {
	case err := <-done:
		t.Fatalf("the segment was used again under its reader: %v", err)
	default:
	}
	p := make([]byte, blockSize)
	if err := s.ReadAt(p, dataStart(minSegment)); err != nil || string(p) != string(block(0, 0)) {
		t.Errorf("reader: %v", err)
	}
	s.Release()
	if err := <-done; err != nil {
		t.Error(err)
	}
	l.close()
	if fmt.Sprint(evicted) != "[0 1]" {
		t.Errorf("evicted %v", evicted)
	}
}

// TestBudget: three logs share ten segments. The first takes what is not promised to the others; they still get their
// two. When it has settled, the third one's wait ends at its cost.
func TestBudget(t *testing.T) {
	fs := vfs.NewCrash()
	b := NewBudget(10 * minSegment)
	var full []int
	var mu sync.Mutex
	start := func(name string) *testLog {
		o := testOptions(fs)
		o.Dir, o.Budget = "logs/"+name, b
		if name == "c" {
			o.Full = func(waiting int, err error) {
				mu.Lock()
				defer mu.Unlock()
				full = append(full, waiting)
				if err != nil {
					t.Error(err)
				}
			}
		}
		return startLog(t, o, 1)
	}
	a, c, d := start("a"), start("c"), start("d")
	if n := a.fill(); n != 6*14 {
		t.Errorf("a got room for %d blocks", n)
	}
	if n := c.fill(); n != 2*14 {
		t.Errorf("c got room for %d blocks", n)
	}
	done := c.waits(context.Background(), 15*blockSize)
	waitFor(t, func() bool { return b.Waiting() == 1 })
	if n := d.fill(); n != 2*14 {
		t.Errorf("d got room for %d blocks", n)
	}
	if b.Used() != b.Total() {
		t.Errorf("%d of %d used", b.Used(), b.Total())
	}
	a.settleAll()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { mu.Lock(); defer mu.Unlock(); return fmt.Sprint(full) == "[1 0 1 0]" })
	if a.Bytes() >= 6*minSegment || b.Used() > b.Total() || b.Waiting() != 0 {
		t.Errorf("a holds %d, used %d, waiting %d", a.Bytes(), b.Used(), b.Waiting())
	}
	for _, l := range []*testLog{a, c, d} {
		l.settleAll()
		l.close()
	}
	if b.Used() != 0 {
		t.Errorf("%d bytes used by nobody", b.Used())
	}
}

// TestBudgetQueue: what comes back goes to the log that has waited longest, not to the one that asks at the right moment.
func TestBudgetQueue(t *testing.T) {
	b := NewBudget(7 * minSegment)
	var logs [3]*Log
	for i := range logs {
		logs[i] = &Log{o: Options{Dir: fmt.Sprint(i), SegmentSize: minSegment}}
		b.register(logs[i], 2*minSegment)
	}
	if !b.take(logs[0], minSegment) || b.take(logs[1], minSegment) {
		t.Fatal("one segment is shared")
	}
	b.wait(logs[1])
	b.wait(logs[2])
	b.give(logs[0], minSegment)
	if b.take(logs[0], minSegment) || b.take(logs[2], minSegment) || b.Waiting() != 2 {
		t.Error("a log was served before the first in the queue")
	}
	if !b.take(logs[1], minSegment) || b.Waiting() != 1 {
		t.Error("the first in the queue was not served")
	}
	b.give(logs[1], minSegment)
	b.leave(logs[2])
	if !b.take(logs[0], minSegment) {
		t.Error("nobody waits")
	}
}

// budgetLogs starts a log for each name; they share a budget of so many segments.
func budgetLogs(t *testing.T, segments int64, names ...string) []*testLog {
	var logs []*testLog
	fs, b := vfs.NewCrash(), NewBudget(segments*minSegment)
	for _, name := range names {
		logs = append(logs, joinBudget(t, fs, b, name))
	}
	return logs
}

func joinBudget(t *testing.T, fs vfs.FS, b *Budget, name string) *testLog {
	o := testOptions(fs)
	o.Dir, o.Budget = "logs/"+name, b
	l := startLog(t, o, 1)
	t.Cleanup(func() {
		l.Kill(ErrClosed)
		_ = l.Close()
	})
	return l
}

func (l *testLog) writeBlocks(n int) {
	l.t.Helper()
	for i := range uint64(n) {
		l.write(i, i, true)
	}
}

// getsRoom: a log that is full waits for room for another block, and is served.
func (l *testLog) getsRoom() {
	l.t.Helper()
	done := l.reserveLater(blockSize)
	waitFor(l.t, func() bool { return len(done) > 0 })
	if err := <-done; err != nil {
		l.t.Error(err)
	}
}

// TestBudgetAfterOthersJoined: one log has taken all there was before others came, who are sure of their parts. What it
// gives back makes room for them only when all of it is back that the budget is short of; it needs no upload.
func TestBudgetAfterOthersJoined(t *testing.T) {
	fs, b := vfs.NewCrash(), NewBudget(7*minSegment)
	a := joinBudget(t, fs, b, "a")
	a.fill()
	a.settleAll()
	c, d := joinBudget(t, fs, b, "c"), joinBudget(t, fs, b, "d")
	c.writeBlocks(2 * 14)
	d.writeBlocks(2 * 14)
	c.getsRoom()
	if b.Used() > b.Total() {
		t.Errorf("%d of %d used", b.Used(), b.Total())
	}
}

// TestBudgetServesAllWhoWait: what one log has settled goes to all who wait, one after the other.
func TestBudgetServesAllWhoWait(t *testing.T) {
	logs := budgetLogs(t, 10, "a", "c", "d")
	for _, l := range logs {
		l.fill()
	}
	first, second := logs[1].reserveLater(blockSize), logs[2].reserveLater(blockSize)
	waitFor(t, func() bool { return logs[0].o.Budget.Waiting() == 2 })
	logs[0].settleAll()
	waitFor(t, func() bool { return len(first) > 0 && len(second) > 0 })
}

// TestBudgetAndDeadLogs: a log that has failed or was fenced, and is still open, is in nobody's way: neither at the head of
// the queue nor as the one with the most to give.
// A log that is asked for space while a request of its own waits gives it once that is served: whoever waits in the budget's
// queue is not asked for again by anybody but the next that settles.
func TestBudgetAsksALogWithWaiters(t *testing.T) {
	l := &Log{giveUp: blockSize, free: []freeFile{{size: blockSize}}}
	l.waiters = append(l.waiters, &waiter{})
	if _, wanted := l.takeSurplus(); wanted || len(l.free) == 0 {
		t.Fatal("it gave away what its own request waits for")
	}
	l.waiters = nil
	if f, wanted := l.takeSurplus(); !wanted || f.size != blockSize {
		t.Fatalf("it has forgotten: %+v, %v", f, wanted)
	}
}

func TestBudgetAndDeadLogs(t *testing.T) {
	dead := errors.New("taken over")
	t.Run("waited", func(t *testing.T) {
		logs := budgetLogs(t, 7, "a", "c", "d")
		a, c, d := logs[0], logs[1], logs[2]
		d.fill()
		a.fill()
		c.fill()
		waiting := a.reserveLater(blockSize)
		waitFor(t, func() bool { return a.o.Budget.Waiting() == 1 })
		a.Kill(dead)
		if err := <-waiting; !errors.Is(err, dead) {
			t.Error(err)
		}
		next := c.reserveLater(blockSize)
		d.settleAll()
		waitFor(t, func() bool { return len(next) > 0 })
	})
	t.Run("settled", func(t *testing.T) {
		logs := budgetLogs(t, 9, "a", "c", "d")
		a, c, d := logs[0], logs[1], logs[2]
		a.writeBlocks(4 * 14)
		a.settleAll()
		d.writeBlocks(3 * 14)
		d.settleAll()
		a.Kill(dead)
		c.writeBlocks(2 * 14)
		c.getsRoom()
	})
}

// TestFullFileSystem: a disk filled by others is a full log, not an error; the wait ends when there is space again, with
// nobody to tell us so.
func TestFullFileSystem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := vfs.NewFault(vfs.NewCrash())
		var mu sync.Mutex
		var told []string
		o := testOptions(fault)
		o.Full = func(waiting int, err error) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprint(waiting, errors.Is(err, vfs.ErrNoSpace), err != nil && strings.Contains(err.Error(), testDir)))
		}
		l := startLog(t, o, 1)
		full := func(op vfs.Op, name string) error {
			if op == vfs.OpAllocate {
				return fmt.Errorf("allocate %s: %w", name, vfs.ErrNoSpace)
			}
			return nil
		}
		fault.Before(full)
		done := l.reserveLater(blockSize)
		synctest.Wait()
		time.Sleep(10 * time.Second)
		select {
		case err := <-done:
			t.Fatalf("did not wait: %v", err)
		default:
		}
		l.flush()
		fault.Before(nil)
		time.Sleep(retryFull)
		synctest.Wait()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(told); got != "[1 true true 0 false false]" {
			t.Errorf("told %s", got)
		}
		l.close()
		if names, _ := o.FS.List(testDir); fmt.Sprint(names) != "[head spare]" {
			t.Errorf("left behind: %v", names)
		}
	})
}

// TestFullFileSystemTakesFromOtherLogs: a log that has nothing of its own to give up gets, on a full file system, what another
// one has settled.
func TestFullFileSystemTakesFromOtherLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault, b := vfs.NewFault(vfs.NewCrash()), NewBudget(64*minSegment)
		a, c := joinBudget(t, fault, b, "a"), joinBudget(t, fault, b, "c")
		a.writeBlocks(5 * 14)
		a.settleAll()
		var free atomic.Int64
		fault.Before(func(op vfs.Op, name string) error {
			if op == vfs.OpCreate && strings.HasSuffix(name, ".seg") && free.Add(-1) < 0 {
				free.Add(1)
				return fmt.Errorf("create %s: %w", name, vfs.ErrNoSpace)
			}
			return nil
		})
		fault.After(func(op vfs.Op, name string) error {
			if op == vfs.OpRemove && strings.HasSuffix(name, ".seg") {
				free.Add(1)
			}
			return nil
		})
		done := c.reserveLater(blockSize)
		time.Sleep(10 * retryFull)
		synctest.Wait()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("no room, although another log has plenty")
		}
		if a.Bytes() < 4*minSegment {
			t.Errorf("the other log was left with %d bytes", a.Bytes())
		}
		fault.Before(nil)
	})
}

// TestFullFileSystemIsTriedOnceASecond: however many wait.
func TestFullFileSystemIsTriedOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := vfs.NewFault(vfs.NewCrash())
		l := startLog(t, testOptions(fault), 1)
		fault.Before(func(op vfs.Op, name string) error {
			if op == vfs.OpAllocate {
				return fmt.Errorf("allocate %s: %w", name, vfs.ErrNoSpace)
			}
			return nil
		})
		for range 20 {
			l.reserveLater(blockSize)
			synctest.Wait()
		}
		before := fault.Count(vfs.OpAllocate)
		time.Sleep(10 * retryFull)
		synctest.Wait()
		if n := fault.Count(vfs.OpAllocate) - before; n != 10 {
			t.Errorf("tried %d times in 10 seconds", n)
		}
		l.Kill(ErrClosed)
		_ = l.Close()
	})
}

// TestFullFileSystemRecycles: with no block left on the file system, but for what the log holds itself, settled segments
// are used again: the spare blocks give room for the head that lets them go.
func TestFullFileSystemRecycles(t *testing.T) {
	fault := vfs.NewFault(vfs.NewCrash())
	o := testOptions(fault)
	o.Budget = NewBudget(0)
	l := startLog(t, o, 1)
	l.fill()
	var free atomic.Int64
	fault.Before(func(op vfs.Op, name string) error {
		switch op {
		case vfs.OpRemove:
			free.Add(1)
		case vfs.OpCreate:
			if free.Add(-1) < 0 {
				free.Add(1)
				return fmt.Errorf("create %s: %w", name, vfs.ErrNoSpace)
			}
		}
		return nil
	})
	l.settleAll()
	for i := range uint64(14) {
		l.write(i, i, true)
	}
	fault.Before(nil)
	l.close()
}

// TestAbandonMakesRoom: the last thing that keeps a settled segment from being given up to a waiter may be a move that is
// abandoned.
func TestAbandonMakesRoom(t *testing.T) {
	o := testOptions(vfs.NewCrash())
	o.Budget = NewBudget(0)
	l := startLog(t, o, 1)
	for i := range uint64(20) {
		l.write(i, i, true)
	}
	move, err := l.Reserve(context.Background(), blockSize, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := l.reserveLater(l.MaxReserve())
	l.settleAll()
	waitFor(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.reported > 0 && !l.maint
	})
	l.Abandon(move)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	l.close()
}

// TestReplaceOnAFullFileSystem: what lies beside the head is replaced from the spare blocks too, and they are taken again
// as soon as there are any.
func TestReplaceOnAFullFileSystem(t *testing.T) {
	fault := vfs.NewFault(vfs.NewCrash())
	o := testOptions(fault)
	l := startLog(t, o, 1)
	spare := true
	fault.Before(func(op vfs.Op, name string) error {
		switch {
		case op == vfs.OpRemove && name == l.sparePath():
			spare = false
		case spare && op == vfs.OpCreate, op == vfs.OpAllocate:
			return fmt.Errorf("%v %s: %w", op, name, vfs.ErrNoSpace)
		}
		return nil
	})
	if err := l.Replace("manifest", []byte("new")); err != nil {
		t.Fatal(err)
	}
	if got, err := vfs.ReadFile(o.FS, filepath.Join(testDir, "manifest")); string(got) != "new" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	allocated := int64(0)
	fault.Before(func(op vfs.Op, name string) error {
		if op == vfs.OpAllocate {
			allocated++
		}
		return nil
	})
	if err := l.Replace("manifest", []byte("newer")); err != nil {
		t.Fatal(err)
	}
	if err := l.Replace("manifest", []byte("newest")); err != nil {
		t.Fatal(err)
	}
	if allocated != 1 {
		t.Errorf("the spare blocks were taken %d times, want once", allocated)
	}
	fault.Before(nil)
	l.close()
}

// TestGrowingSegments: a log that fills many segments makes larger ones.
func TestGrowingSegments(t *testing.T) {
	o := testOptions(vfs.NewCrash())
	l := startLog(t, o, 1)
	defer l.close()
	for l.Bytes() < 40*minSegment {
		spans, err := l.Reserve(context.Background(), 64<<10, nil)
		if err != nil {
			t.Fatal(err)
		}
		l.Append(make([]Record, len(spans)), spans)
	}
	sizes := map[int64]int{}
	for _, e := range l.extents() {
		sizes[e.seg.size]++
	}
	if sizes[minSegment] != growAfter || sizes[2*minSegment] < 10 {
		t.Errorf("segments by size: %v", sizes)
	}
}

func (l *testLog) extents() []extent {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.extentsLocked()
}

// TestIdleLogs: a thousand logs that hold a little each, and do nothing, cost little memory and no goroutine.
func TestIdleLogs(t *testing.T) {
	fs := vfs.NewCrash()
	b := NewBudget(math.MaxInt64 / 2)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const n = 500
	var logs []*testLog
	before := heap()
	for i := range n {
		o := testOptions(fs)
		o.Dir, o.Budget = fmt.Sprintf("logs/%d", i), b
		logs = append(logs, startLog(t, o, 1))
	}
	if b.Used() != 0 {
		t.Errorf("logs that never wrote hold %d bytes", b.Used())
	}
	for _, l := range logs {
		l.zero(0, 1)
		l.flush()
	}
	for _, l := range logs {
		l.wg.Wait()
	}
	if b.Used() != n*minSegment {
		t.Errorf("%d idle logs hold %d bytes", n, b.Used())
	}
	goleak.VerifyNone(t, goleak.IgnoreCurrent())
	if got := runtime.NumGoroutine(); got > 20 {
		t.Errorf("%d goroutines", got)
	}
	// The file system in memory is in it too, with the segment.
	if per := (heap() - before) / n; per > minSegment+32<<10 {
		t.Errorf("%d bytes of memory for each", per)
	}
	for _, l := range logs {
		l.close()
	}
}

// TestOrderOnDisk pins what is made durable before what.
func TestOrderOnDisk(t *testing.T) {
	fs := vfs.NewCrash()
	o := testOptions(fs)
	o.Budget = NewBudget(0)
	l := startLog(t, o, 1)
	pin := func(what, want string) {
		t.Helper()
		got := strings.ReplaceAll(strings.Join(fs.Log(), "\n"), testDir+"/", "")
		if want = strings.TrimSpace(want); !strings.HasSuffix(got, want) {
			t.Errorf("%s:\n%s\nwant\n%s", what, got, want)
		}
	}
	pin("start", "create spare\nallocate spare 0+131072\ncreate head.new\nwrite head.new 0+162\nsync head.new\nrename head.new head\nsyncdir logs/disk")
	l.write(1, 1, false)
	pin("first write", "create 00000000.seg\nallocate 00000000.seg 0+65536\nwrite 00000000.seg 0+65536\nwrite 00000000.seg 0+512\nsync 00000000.seg\nsyncdir logs/disk\n"+
		"write 00000000.seg 8192+4096\nwrite 00000000.seg 4096+64")
	l.flush()
	pin("flush without checksum", "write 00000000.seg 4096+64\nsync 00000000.seg\nwrite 00000000.seg 4160+64\nsync 00000000.seg")
	l.write(2, 2, true)
	l.flush()
	pin("flush with checksum", "write 00000000.seg 4224+64\nsync 00000000.seg")
	l.fill()
	n := len(fs.Log())
	l.settleAll()
	l.wg.Wait()
	got := strings.ReplaceAll(strings.Join(fs.Log()[n:], "\n"), testDir+"/", "")
	if !strings.HasSuffix(got, "create head.new\nwrite head.new 0+162\nsync head.new\nrename head.new head\nsyncdir logs/disk\n"+
		"write 00000000.seg 0+512") {
		t.Errorf("recycling:\n%s", got)
	}
	l.close()
}
