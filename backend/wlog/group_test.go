package wlog

import (
	"sync"
	"testing"
	"testing/synctest"

	"glidefs-appliance/backend/vfs"
)

// TestFlushWhileGroupIsAppended: a flush that comes then is served by the pass under way, and does not take the
// place of one that could lead the next.
func TestFlushWhileGroupIsAppended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(vfs.NewCrash())
		var l *testLog
		resume := make(chan struct{})
		o.AppendGroup = func(group []*GroupWrite) {
			<-resume
			for _, w := range group {
				w.Seq = l.zero(1, 1)
			}
		}
		l = startLog(t, o, 1)
		defer l.close()
		grouped := func() {
			w := new(GroupWrite)
			if err := l.FlushGrouped(w); err != nil || w.Seq == 0 || l.DurableSeq() < w.Seq {
				t.Errorf("record %d is not durable: %v", w.Seq, err)
			}
		}
		var wg sync.WaitGroup
		wg.Go(grouped)
		synctest.Wait()
		seq := l.zero(5, 1)
		wg.Go(l.flush)
		synctest.Wait()
		wg.Go(grouped)
		synctest.Wait()
		close(resume)
		wg.Wait()
		if l.DurableSeq() < seq {
			t.Errorf("record %d is not durable", seq)
		}
	})
}
