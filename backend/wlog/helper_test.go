package wlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"testing"

	"glidefs-appliance/backend/vfs"
)

const testDir = "logs/disk"

var testVolume = [16]byte{7: 7}

// testLog is a log with a caller that does what the volume does.
type testLog struct {
	*Log
	t testing.TB
}

func testOptions(fs vfs.FS) Options {
	return Options{FS: fs, Dir: testDir, Volume: testVolume, BootID: "boot-1", Budget: NewBudget(64 << 20), SegmentSize: minSegment}
}

func openLog(t testing.TB, o Options) *testLog {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return &testLog{l, t}
}

func startLog(t testing.TB, o Options, id byte) *testLog {
	t.Helper()
	l := openLog(t, o)
	if err := l.Start(LogID{id}); err != nil {
		t.Fatal(err)
	}
	return l
}

// block is 4096 bytes that tell who wrote them.
func block(sector, stamp uint64) []byte {
	p := make([]byte, blockSize)
	for i := 0; i < len(p); i += 16 {
		binary.LittleEndian.PutUint64(p[i:], sector)
		binary.LittleEndian.PutUint64(p[i+8:], stamp)
	}
	return p
}

// write writes one block as one request and commits it.
func (l *testLog) write(sector, stamp uint64, sum bool) uint64 {
	l.t.Helper()
	spans, err := l.Reserve(context.Background(), blockSize, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.put(spans, sector, stamp, sum)
}

func (l *testLog) put(spans []Span, sector, stamp uint64, sum bool) uint64 {
	l.t.Helper()
	p := block(sector, stamp)
	if err := spans[0].Seg.WriteAt(p, spans[0].Off); err != nil {
		l.t.Fatal(err)
	}
	r := Record{Kind: KindWrite, Flags: FlagEnd, First: sector, Count: 1}
	if sum {
		r.Flags |= FlagSum
		r.Sum = Sum(p)
	}
	seq := l.Append([]Record{r}, spans)
	if err := l.Commit(seq); err != nil {
		l.t.Fatal(err)
	}
	return seq
}

func (l *testLog) zero(sector, count uint64) uint64 {
	l.t.Helper()
	spans, err := l.Reserve(context.Background(), 0, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	seq := l.Append([]Record{{Kind: KindZero, Flags: FlagEnd, First: sector, Count: count}}, spans)
	if err := l.Commit(seq); err != nil {
		l.t.Fatal(err)
	}
	return seq
}

func (l *testLog) flush() {
	l.t.Helper()
	if err := l.Flush(); err != nil {
		l.t.Fatal(err)
	}
}

// settleAll does what an upload of everything does.
func (l *testLog) settleAll() {
	l.t.Helper()
	b := l.LastBarrier()
	l.flush()
	if err := l.Settle(b); err != nil {
		l.t.Fatal(err)
	}
}

func (l *testLog) close() {
	l.t.Helper()
	if err := l.Close(); err != nil {
		l.t.Fatal(err)
	}
}

// contents lists the log's records as "seq:sector=stamp" or "seq:zero sector+count", with the data checked.
func (l *testLog) contents() []string {
	l.t.Helper()
	var got []string
	err := l.Records(0, func(r Record, s *Segment) error {
		if r.Kind == KindZero {
			got = append(got, fmt.Sprintf("%d:zero %d+%d", r.Seq, r.First, r.Count))
			return nil
		}
		p := make([]byte, r.Len)
		if err := s.ReadAt(p, r.DataOff()); err != nil {
			return err
		}
		stamp := binary.LittleEndian.Uint64(p[8:])
		if !bytes.Equal(p, block(r.First, stamp)) {
			return fmt.Errorf("record %d: torn or foreign data", r.Seq)
		}
		got = append(got, fmt.Sprintf("%d:%d=%d", r.Seq, r.First, stamp))
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return got
}
