package wlog

import (
	"context"
	"errors"
	"testing"

	"glidefs-appliance/backend/vfs"
)

// A request whose records lie in two segments is written with two pwrites. Killed in between, all of it is left out:
// what is there could neither be uploaded nor be told from an acknowledged write.
func TestHalfRequestIsLeftOut(t *testing.T) {
	fs := vfs.NewCrash()
	l := startLog(t, testOptions(fs), 1)
	l.write(1, 1, true)
	spans, err := l.Reserve(context.Background(), capacity(minSegment), nil)
	if err != nil || len(spans) != 2 {
		t.Fatalf("%d spans, %v", len(spans), err)
	}
	var recs []Record
	for _, s := range spans {
		p := make([]byte, s.Len)
		if err := s.Seg.WriteAt(p, s.Off); err != nil {
			t.Fatal(err)
		}
		recs = append(recs, Record{Kind: KindWrite, Flags: FlagSum, First: 10, Count: uint64(s.Len / blockSize), Sum: Sum(p)})
	}
	recs[1].Flags |= FlagEnd
	before := fs.Ops()
	if err := l.Commit(l.Append(recs, spans)); err != nil {
		t.Fatal(err)
	}
	l.Kill(errors.New("killed"))
	if n := fs.Ops() - before; n != 2 {
		t.Fatalf("the records took %d writes", n)
	}

	o := testOptions(fs.KillAt(before + 1))
	for life := range byte(2) { // they stay out
		l = startLog(t, o, 2+life)
		if got := l.LastSeq(); got != 1 {
			t.Errorf("life %d: the log ends at %d", life, got)
		}
		if bytes, writes := l.Unsettled(); bytes != blockSize || writes != 1 {
			t.Errorf("life %d: %d bytes in %d writes", life, bytes, writes)
		}
		l.Kill(errors.New("killed"))
		l.closeFiles()
	}
}
