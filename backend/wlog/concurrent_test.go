package wlog

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"glidefs-appliance/backend/vfs"
)

// miniVolume is the least volume that keeps the contract: a map under a lock, eviction, readers with references.
type miniVolume struct {
	t  testing.TB
	l  *Log
	mu sync.Mutex
	m  map[uint64]Record // sector to the record that holds it
	// stored is what was uploaded, for what is not in m any more.
	stored map[uint64]uint64
	stamps map[uint64]uint64 // by seq
}

func newMiniVolume(t testing.TB, o Options) *miniVolume {
	v := &miniVolume{t: t, m: map[uint64]Record{}, stored: map[uint64]uint64{}, stamps: map[uint64]uint64{}}
	o.Evict = v.evict
	v.l = startLog(t, o, 1).Log
	return v
}

func (v *miniVolume) evict(s *Segment) {
	err := s.Records(func(r Record) error {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.m[r.First].Seq == r.Seq {
			delete(v.m, r.First)
		}
		return nil
	})
	if err != nil {
		v.t.Error(err)
	}
}

func (v *miniVolume) write(ctx context.Context, sector, stamp uint64) error {
	var buf [2]Span
	spans, err := v.l.Reserve(ctx, blockSize, buf[:0])
	if err != nil {
		return err
	}
	p := block(sector, stamp)
	if err := spans[0].Seg.WriteAt(p, spans[0].Off); err != nil {
		return err
	}
	recs := []Record{{Kind: KindWrite, Flags: FlagEnd | FlagSum, First: sector, Count: 1, Sum: Sum(p)}}
	v.mu.Lock()
	seq := v.l.Append(recs, spans)
	v.m[sector] = recs[0]
	v.stamps[seq] = stamp
	v.mu.Unlock()
	return v.l.Commit(seq)
}

// read returns the stamp of a sector, 0 if it was never written.
func (v *miniVolume) read(sector uint64) (uint64, error) {
	v.mu.Lock()
	r, ok := v.m[sector]
	if !ok {
		defer v.mu.Unlock()
		return v.stored[sector], nil
	}
	s, stamp := v.l.Acquire(r.Seg), v.stamps[r.Seq]
	v.mu.Unlock()
	defer s.Release()
	p := make([]byte, blockSize)
	if err := s.ReadAt(p, r.DataOff()); err != nil {
		return 0, err
	}
	if !bytes.Equal(p, block(sector, stamp)) {
		return 0, errors.New("block is not the record's")
	}
	return stamp, nil
}

// upload settles everything there is.
func (v *miniVolume) upload() error {
	b := v.l.LastBarrier()
	if err := v.l.Flush(); err != nil {
		return err
	}
	err := v.l.Records(0, func(r Record, s *Segment) error {
		if r.Seq <= b.Seq {
			v.mu.Lock()
			v.stored[r.First] = v.stamps[r.Seq]
			v.mu.Unlock()
		}
		return nil
	})
	if err != nil || b == v.l.Head().Settled {
		return err
	}
	return v.l.Settle(b)
}

// TestConcurrent: writers, flushers, readers and an uploader on a log that is nearly always full. Each writer has its own
// sectors and must read what it wrote last, whether that is in the log or was evicted.
func TestConcurrent(t *testing.T) {
	o := testOptions(vfs.NewCrash())
	o.FS = vfs.NewFault(o.FS)
	o.Budget = NewBudget(6 * minSegment)
	v := newMiniVolume(t, o)
	const enough = 4000 // the log holds 84
	ctx := t.Context()
	var writers, others sync.WaitGroup
	var writes atomic.Int64
	for w := range uint64(8) {
		writers.Go(func() {
			rng := rand.New(rand.NewPCG(w, 1))
			last := map[uint64]uint64{}
			for n := uint64(1); writes.Add(1) <= enough; n++ {
				sector := w*100 + rng.Uint64N(50)
				if err := v.write(ctx, sector, n); err != nil {
					t.Error(err)
					return
				}
				last[sector] = n
				if n%8 == 0 {
					if err := v.l.Flush(); err != nil {
						t.Error(err)
					}
				}
				sector = w*100 + rng.Uint64N(50)
				if got, err := v.read(sector); err != nil || got != last[sector] {
					t.Errorf("sector %d is %d, want %d: %v", sector, got, last[sector], err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	others.Go(func() {
		for {
			if err := v.upload(); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	writers.Wait()
	close(done)
	others.Wait()
	if err := v.upload(); err != nil {
		t.Fatal(err)
	}
	if got := v.l.Bytes(); got > 6*minSegment {
		t.Errorf("log holds %d bytes", got)
	}
	if err := v.l.Close(); err != nil {
		t.Fatal(err)
	}
	if used := o.Budget.Used(); used != 0 {
		t.Errorf("budget still counts %d bytes", used)
	}
}

// TestGroupFlush: callers that come while a sync runs are all served by the next one.
func TestGroupFlush(t *testing.T) {
	fault := vfs.NewFault(vfs.NewCrash())
	o := testOptions(fault)
	o.SegmentSize = 1 << 20 // one is enough
	l := startLog(t, o, 1)
	defer l.close()
	l.write(0, 0, true)
	entered, resume := make(chan struct{}), make(chan struct{})
	var held atomic.Bool
	fault.Before(func(op vfs.Op, _ string) error {
		if op == vfs.OpSync && held.CompareAndSwap(false, true) {
			close(entered)
			<-resume
		}
		return nil
	})
	before := fault.Count(vfs.OpSync)
	var wg sync.WaitGroup
	wg.Go(func() { l.flush() })
	<-entered
	for i := range uint64(64) {
		seq := l.write(i, i, true)
		wg.Go(func() {
			l.flush()
			if l.DurableSeq() < seq {
				t.Errorf("flush came back at %d, before %d", l.DurableSeq(), seq)
			}
		})
	}
	waitFor(t, func() bool { return l.sleepers(&l.syncing) == 64 })
	close(resume)
	wg.Wait()
	if got := fault.Count(vfs.OpSync) - before; got != 2 {
		t.Errorf("%d syncs for 65 flushes", got)
	}
}

// sleepers counts the callers that wait at a gate.
func (l *testLog) sleepers(g *gate) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return g.waiting[0] + g.waiting[1]
}

func waitFor(t testing.TB, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
	}
}

// TestGroupCommit: records that queue up while a pwrite runs go out with one pwrite.
func TestGroupCommit(t *testing.T) {
	fault := vfs.NewFault(vfs.NewCrash())
	l := startLog(t, testOptions(fault), 1)
	defer l.close()
	l.write(0, 0, true) // opens the segment
	var all [11][]Span
	for i := range all {
		all[i], _ = l.TryReserve(0, nil)
	}
	entered, resume := make(chan struct{}), make(chan struct{})
	var held atomic.Bool
	fault.Before(func(op vfs.Op, _ string) error {
		if op == vfs.OpWrite && held.CompareAndSwap(false, true) {
			close(entered)
			<-resume
		}
		return nil
	})
	before := fault.Count(vfs.OpWrite)
	var wg sync.WaitGroup
	commit := func(spans []Span) {
		seq := l.Append([]Record{{Kind: KindZero, Flags: FlagEnd, Count: 1}}, spans)
		wg.Go(func() {
			if err := l.Commit(seq); err != nil {
				t.Error(err)
			}
		})
	}
	commit(all[0])
	<-entered
	for _, spans := range all[1:] {
		commit(spans)
	}
	waitFor(t, func() bool { return l.sleepers(&l.writing) == 10 })
	close(resume)
	wg.Wait()
	if got := fault.Count(vfs.OpWrite) - before; got != 2 {
		t.Errorf("%d pwrites for 11 commits", got)
	}
}

func TestFailedSyncIsFinal(t *testing.T) {
	fault := vfs.NewFault(vfs.NewCrash())
	l := startLog(t, testOptions(fault), 1)
	l.write(1, 1, true)
	bad := errors.New("medium error")
	fault.Before(func(op vfs.Op, _ string) error {
		if op == vfs.OpSync {
			return bad
		}
		return nil
	})
	if err := l.Flush(); !errors.Is(err, bad) {
		t.Fatalf("flush: %v", err)
	}
	fault.Before(nil)
	if err := l.Flush(); !errors.Is(err, bad) || !errors.Is(l.Failed(), bad) {
		t.Errorf("second flush: %v, failed: %v", err, l.Failed())
	}
	if l.DurableSeq() != 0 {
		t.Errorf("durable %d", l.DurableSeq())
	}
	if _, err := l.Reserve(context.Background(), blockSize, nil); !errors.Is(err, bad) {
		t.Errorf("reserve: %v", err)
	}
	if err := l.Close(); !errors.Is(err, bad) {
		t.Errorf("close: %v", err)
	}
}

// TestFailedBackgroundSyncIsFinal: the kernel reports a failed write-out to one fdatasync only, here that of a sealed
// segment in the background; Flush must not call the log durable after it.
func TestFailedBackgroundSyncIsFinal(t *testing.T) {
	fault := vfs.NewFault(vfs.NewCrash())
	l := startLog(t, testOptions(fault), 1)
	l.write(1, 1, true)
	if err := l.Flush(); err != nil { // a log that is flushed is synced ahead
		t.Fatal(err)
	}
	bad := errors.New("medium error")
	var once sync.Once
	fault.Before(func(op vfs.Op, name string) (err error) {
		if op == vfs.OpSync && name == segmentFile(0) {
			once.Do(func() { err = bad })
		}
		return err
	})
	for l.Failed() == nil {
		spans, err := l.Reserve(context.Background(), blockSize, nil)
		if err != nil {
			break
		}
		p := block(2, 2)
		_ = spans[0].Seg.WriteAt(p, spans[0].Off)
		_ = l.Commit(l.Append([]Record{{Kind: KindWrite, Flags: FlagSum | FlagEnd, Sum: Sum(p)}}, spans))
	}
	if err := l.Flush(); !errors.Is(err, bad) {
		t.Errorf("flush: %v", err)
	}
	if err := l.Close(); !errors.Is(err, bad) {
		t.Errorf("close: %v", err)
	}
}

// TestWriteAhead: sealed segments are synced in the background for a writer who flushes, and for one who doesn't once
// there are many.
func TestWriteAhead(t *testing.T) {
	fault := vfs.NewFault(vfs.NewCrash())
	var syncs atomic.Int64
	fault.Before(func(op vfs.Op, _ string) error {
		if op == vfs.OpWriteBack {
			syncs.Add(1)
		}
		return nil
	})
	l := startLog(t, testOptions(fault), 1)
	l.writeAhead = 8 * l.o.SegmentSize
	seal := func(n int) {
		for sealed := func() int { l.mu.Lock(); defer l.mu.Unlock(); return len(l.sealed) }; n > 0; {
			before := sealed()
			l.write(1, 1, true)
			n -= sealed() - before
		}
	}
	idle := func() { // no background sync is on its way
		l.mu.Lock()
		defer l.mu.Unlock()
		for l.flusher {
			l.mu.Unlock()
			runtime.Gosched()
			l.mu.Lock()
		}
	}
	seal(8)
	if idle(); syncs.Load() != 0 {
		t.Errorf("%d segments were synced for a writer who does not flush", syncs.Load())
	}
	seal(2)
	if idle(); syncs.Load() != 2 {
		t.Errorf("%d segments were synced of 2 too many", syncs.Load())
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	seal(3)
	if idle(); syncs.Load() != 5 {
		t.Errorf("%d segments were synced of 3 sealed since a flush", syncs.Load()-2)
	}
	if err := l.FlushThrough(l.LastSeq()); err != nil {
		t.Fatal(err)
	}
	seal(8)
	if idle(); syncs.Load() >= 13 {
		t.Error("the flush of an upload counts as one of the writer")
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	o := testOptions(vfs.OS())
	o.Dir = t.TempDir()
	o.SegmentSize = maxSegment
	l := startLog(t, o, 1)
	w := newWriter(l.Log, block(1, 1))
	w.write(t)
	if n := testing.AllocsPerRun(500, func() {
		w.write(t)
		l.Acquire(0).Release()
	}); n != 0 {
		t.Errorf("%v allocations per write", n)
	}
	l.close()
}
