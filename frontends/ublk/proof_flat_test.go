package ublk

import (
	"os"
	"slices"
	"testing"
	"time"
)

const (
	flatSamples     = 20
	flatKiB         = 16 << 10 // what the last quarter may need more than the one before, beside a tenth
	flatDescriptors = 32
)

// flat watches this process for the time of a soak. The function it returns, called at the end, expects that neither
// memory nor descriptors have grown from the third quarter of that time to the last.
func flat(t *testing.T, span time.Duration) (end func()) {
	var memory, files []int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	tick := time.NewTicker(span / flatSamples)
	go func() {
		defer close(stopped)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				open, _ := os.ReadDir("/proc/self/fd")
				memory, files = append(memory, residentKiB()), append(files, int64(len(open)))
			}
		}
	}()
	return func() {
		t.Helper()
		close(stop)
		<-stopped
		n := len(memory)
		if n < 4 {
			t.Fatalf("%d looks at memory and descriptors", n)
		}
		most := func(of []int64, quarter int) int64 { return slices.Max(of[n*quarter/4 : n*(quarter+1)/4]) }
		t.Logf("memory by quarters %d %d %d %d MiB, descriptors %d %d %d %d", most(memory, 0)>>10, most(memory, 1)>>10,
			most(memory, 2)>>10, most(memory, 3)>>10, most(files, 0), most(files, 1), most(files, 2), most(files, 3))
		if before, after := most(memory, 2), most(memory, 3); after > before+before/10+flatKiB {
			t.Errorf("memory grew from %d to %d KiB", before, after)
		}
		if before, after := most(files, 2), most(files, 3); after > before+flatDescriptors {
			t.Errorf("descriptors grew from %d to %d", before, after)
		}
	}
}
