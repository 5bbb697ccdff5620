package wlog

import (
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
