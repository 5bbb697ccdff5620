package ublk

import (
	"os"
	"runtime/debug"
	"slices"
	"testing"
	"time"
)

const (
	flatSamples = 20
	// What the last quarter may need more than any before, beside a tenth: as much as batches in work may hold, which a
	// minute in a slow guest does not always reach. What is lost drop by drop shows in a long soak.
	flatKiB         = 128 << 10
	flatDescriptors = 32
)

// flat watches this process for the time of a soak. The function it returns, called at the end, expects that neither
// memory nor descriptors have grown in the last quarter of that time. Of the memory it takes the least of
// a quarter, with the garbage given back: the uploads on their way make it go up and down by dozens of MiB, and the heap's
// high-water mark rises for minutes, but what is lost stays lost.
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
				debug.FreeOSMemory()
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
		least := func(quarter int) int64 { return slices.Min(memory[n*quarter/4 : n*(quarter+1)/4]) }
		most := func(quarter int) int64 { return slices.Max(files[n*quarter/4 : n*(quarter+1)/4]) }
		t.Logf("memory by quarters %d %d %d %d MiB, descriptors %d %d %d %d", least(0)>>10, least(1)>>10, least(2)>>10, least(3)>>10,
			most(0), most(1), most(2), most(3))
		if before, after := max(least(0), least(1), least(2)), least(3); after > before+before/10+flatKiB {
			t.Errorf("memory grew from %d to %d KiB", before, after)
		}
		if before, after := most(2), most(3); after > before+flatDescriptors {
			t.Errorf("descriptors grew from %d to %d", before, after)
		}
	}
}
