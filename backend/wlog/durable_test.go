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
	o := testOptions(fs)
	o.SegmentSize = 2 * minSegment // in which moves of one block are not spread
	l := startLog(t, o, 1)
	slots := uint64(recordArea(o.SegmentSize) / recordSize)
	for range slots - 5 {
		l.zero(100, 1)
	}
	l.write(1, 1, false)
	var moves [3][]Span // under way, so that they are in this segment
	for i := range moves {
		var ok bool
		if moves[i], ok = l.TryReserve(blockSize, nil); !ok {
			t.Fatal("no room")
		}
	}
	l.flush() // its mark takes the slot that was kept for one
	l.put(moves[0], 2, 2, false)
	l.put(moves[1], 3, 3, false)
	l.flush()
	if l.marked >= slots-1 {
		t.Fatalf("there was a slot for a mark of %d", l.marked)
	}
	want := fmt.Sprint(l.contents()[slots-5:])
	l.Kill(errors.New("power cut"))
	l.wg.Wait()
	o.FS, o.Budget, o.BootID = fs.Kill(), NewBudget(64<<20), "boot-2"
	again := openLog(t, o)
	defer again.Close()
	if got := fmt.Sprint(again.contents()[slots-5:]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

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
