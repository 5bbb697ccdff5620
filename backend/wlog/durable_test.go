package wlog

import (
	"errors"
	"fmt"
	"testing"

	"glidefs-appliance/backend/vfs"
)

// TestMarkInTheHead: a flush that finds no slot for a mark says in the head what is durable. It is there after a power cut, though
// nothing carries a checksum of its data.
func TestMarkInTheHead(t *testing.T) {
	fs := vfs.NewCrash()
	l := startLog(t, testOptions(fs), 1)
	n := capacity(minSegment) / blockSize
	for i := range uint64(n) {
		l.write(i, i, false)
	}
	for range int64(l.segment(0).slots()) - n {
		l.zero(100, 1)
	}
	l.flush()
	want := fmt.Sprint(l.contents())
	l.Kill(errors.New("power cut"))
	l.wg.Wait()
	o := testOptions(fs.Kill())
	o.BootID = "boot-2"
	again := openLog(t, o)
	defer again.Close()
	if got := fmt.Sprint(again.contents()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// segment is the segment of that number.
func (l *testLog) segment(number uint32) *Segment { return l.table.get(number) }

// TestSettleNeedsAFlush: the store may not know more than this disk does after a power cut.
func TestSettleNeedsAFlush(t *testing.T) {
	l := startLog(t, testOptions(vfs.NewCrash()), 1)
	defer l.close()
	l.write(1, 1, true)
	l.flush()
	l.write(2, 2, true)
	if err := l.Settle(l.LastBarrier()); err == nil {
		t.Error("what is not durable was settled")
	}
	if bytes, writes := l.Unsettled(); bytes != 2*blockSize || writes != 2 {
		t.Errorf("%d bytes, %d writes are unsettled", bytes, writes)
	}
	l.settleAll()
}
