package wlog

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"glidefs-appliance/backend/vfs"
)

// benchOptions is a log on the real disk, small enough to be on recycled segments most of the time.
func benchOptions(b *testing.B) Options {
	o := testOptions(vfs.OS())
	o.Dir = filepath.Join(b.TempDir(), "log")
	o.SegmentSize = defaultSegment
	o.Budget = NewBudget(12 * defaultSegment)
	return o
}

// BenchmarkWrite compares a 4 KiB write through the log with a bare pwrite over written blocks; nothing is synced by the
// writer.
func BenchmarkWrite(b *testing.B) {
	p := block(1, 1)
	b.Run("bare", func(b *testing.B) {
		f := zeroedFile(b, 32<<20)
		b.SetBytes(blockSize)
		b.ResetTimer()
		for i := range b.N {
			if _, err := f.WriteAt(p, int64(i%(32<<20/blockSize))*blockSize); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("log", func(b *testing.B) {
		l := startLog(b, benchOptions(b), 1)
		defer l.close()
		w := newWriter(l.Log, p)
		b.SetBytes(blockSize)
		b.ReportAllocs()
		b.ResetTimer()
		for i := range b.N {
			w.write(b)
			if i%2048 == 2047 {
				b.StopTimer()
				l.settleAll()
				b.StartTimer()
			}
		}
	})
}

// BenchmarkSyncedWrite compares synced 4 KiB writes with pwrite and fdatasync of one zeroed file.
func BenchmarkSyncedWrite(b *testing.B) {
	p := block(1, 1)
	for _, n := range []int{1, 16, 64} {
		name := map[int]string{1: "1", 16: "16", 64: "64"}[n]
		b.Run("bare/"+name, func(b *testing.B) {
			f := zeroedFile(b, 32<<20)
			var next atomic.Int64
			b.SetParallelism((n + 1) / 2)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					off := next.Add(1) % (32 << 20 / blockSize) * blockSize
					if _, err := f.WriteAt(p, off); err != nil {
						b.Error(err)
					}
					if err := f.Sync(); err != nil {
						b.Error(err)
					}
				}
			})
		})
		b.Run("log/"+name, func(b *testing.B) {
			l := startLog(b, benchOptions(b), 1)
			defer l.close()
			fillOnce(b, l)
			b.SetParallelism((n + 1) / 2)
			var count atomic.Int64
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				w := newWriter(l.Log, p)
				for pb.Next() {
					w.write(b)
					if err := l.Flush(); err != nil {
						b.Error(err)
					}
					if count.Add(1)%2048 == 0 {
						if err := l.Settle(settleable(l)); err != nil {
							b.Error(err)
						}
					}
				}
			})
		})
	}
}

func settleable(l *testLog) Barrier {
	var b Barrier
	durable := l.DurableSeq()
	_ = l.Records(0, func(r Record, _ *Segment) error {
		if r.Seq <= durable {
			b = l.barrierOf(&r)
		}
		return nil
	})
	return b
}

// fillOnce brings the log to its budget, so that from now on segments are recycled.
func fillOnce(b *testing.B, l *testLog) {
	w := newWriter(l.Log, block(1, 1))
	for range 14 {
		for range 1000 {
			w.write(b)
		}
		l.settleAll()
	}
}

// writer is the write path without allocations.
type writer struct {
	l     *Log
	p     []byte
	sum   uint32
	spans [4]Span
	recs  [4]Record
}

func newWriter(l *Log, p []byte) *writer { return &writer{l: l, p: p, sum: Sum(p)} }

func (w *writer) write(t testing.TB) {
	spans, err := w.l.Reserve(context.Background(), int64(len(w.p)), w.spans[:0])
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range spans {
		if err := s.Seg.WriteAt(w.p[:s.Len], s.Off); err != nil {
			t.Fatal(err)
		}
		w.recs[i] = Record{Kind: KindWrite, Flags: FlagEnd | FlagSum, First: 1, Count: 1, Sum: w.sum}
	}
	if err := w.l.Commit(w.l.Append(w.recs[:len(spans)], spans)); err != nil {
		t.Fatal(err)
	}
}

func zeroedFile(b *testing.B, size int) *os.File {
	f, err := os.Create(filepath.Join(b.TempDir(), "zeroed"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	if _, err := f.WriteAt(make([]byte, size), 0); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	return f
}

// BenchmarkTouch is what a read of the log pays for being remembered.
func BenchmarkTouch(b *testing.B) {
	s := &Segment{reads: newReads(defaultSegment)}
	for i := 0; b.Loop(); i++ {
		s.Touch(int64(i)*blockSize%defaultSegment, blockSize)
	}
}
