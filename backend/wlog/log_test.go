package wlog

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"glidefs-appliance/backend/vfs"
)

func TestWriteCloseReopen(t *testing.T) {
	fs := vfs.NewCrash()
	l := startLog(t, testOptions(fs), 1)
	var want []string
	for i := range uint64(40) {
		seq := l.write(i, 100+i, i%2 == 0)
		want = append(want, fmt.Sprintf("%d:%d=%d", seq, i, 100+i))
		if i%7 == 0 {
			l.flush()
			seq = l.zero(i, 3)
			want = append(want, fmt.Sprintf("%d:zero %d+3", seq, i))
		}
	}
	if got := l.contents(); !slices.Equal(got, want) {
		t.Fatalf("running log:\n got %v\nwant %v", got, want)
	}
	end := l.LastBarrier()
	l.close()
	if !Exists(fs, testDir) {
		t.Fatal("no log after close")
	}
	l = openLog(t, testOptions(fs))
	if got := l.contents(); !slices.Equal(got, want) {
		t.Fatalf("reopened log:\n got %v\nwant %v", got, want)
	}
	if l.End() != end || !l.Contains(end) || !l.Head().Clean || !l.Head().SameBoot {
		t.Errorf("end %v, want %v; head %+v", l.End(), end, l.Head())
	}
	if bytes, writes := l.Unsettled(); bytes != 40*blockSize || writes != uint64(len(want)) {
		t.Errorf("unsettled: %d bytes, %d writes", bytes, writes)
	}
	l.close()
}

// TestRecordsHasNoGaps: a record that the disk has lost since it was written is an error, not left out: a batch cut from
// what is left would move the store past it.
func TestRecordsHasNoGaps(t *testing.T) {
	for lost := range uint64(3) {
		l := startLog(t, testOptions(vfs.NewCrash()), 1)
		for i := range uint64(3) {
			l.write(i, i, true)
		}
		if err := l.cur.WriteAt([]byte{0xff}, blockSize+int64(lost)*recordSize+20); err != nil {
			t.Fatal(err)
		}
		for after := range uint64(3) {
			err := l.Records(after, func(Record, *Segment) error { return nil })
			if damaged := errors.Is(err, ErrDamaged); damaged != (lost+1 > after) {
				t.Errorf("record %d lost, after %d: %v", lost+1, after, err)
			}
		}
		l.Kill(ErrClosed)
	}
}
