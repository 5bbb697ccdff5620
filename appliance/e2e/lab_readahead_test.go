//go:build lab

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestReadAhead prints the medians of what a buffered sequential read gets with each read_ahead_kb, from a store that answers
// after 20 ms (cold) and from the local disk (warm): where the udev rule has its value from. It proves nothing, and is run
// by hand.
func TestReadAhead(t *testing.T) {
	const size = 32 << 20
	w := ways(t)[0]
	store, c := counted(t)
	m := w.machine(t, store, `upload_age = "1h"`)
	s := newStamps(size / sector)
	s.fill(t, m.attach("d", "--size", fmt.Sprint(size)))
	m.ok("detach", "d")
	c.hold = func(r *http.Request) {
		if r.Method == http.MethodGet {
			<-time.After(20 * time.Millisecond)
		}
	}
	cold, warm := map[int][]float64{}, map[int][]float64{}
	values := []int{0, 128, 256, 512, 1024, 2048}
	for range rounds(t, 3) {
		for _, kb := range values {
			eventually(t, "the daemon ends", m.gone)
			must(t, os.RemoveAll(filepath.Join(string(m.state), "cache")))
			path := m.attach("d")
			must(t, os.WriteFile("/sys/class/block/"+filepath.Base(path)+"/queue/read_ahead_kb", []byte(fmt.Sprint(kb)), 0o644))
			cold[kb] = append(cold[kb], size/1e6/sequential(t, path).Seconds())
			warm[kb] = append(warm[kb], size/1e6/sequential(t, path).Seconds())
			m.ok("detach", "d")
		}
	}
	for _, kb := range values {
		t.Logf("read_ahead_kb %4d: cold %6.1f MB/s, warm %6.1f MB/s", kb, median(cold[kb]), median(warm[kb]))
	}
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// sequential reads all of a block device through an empty page cache.
func sequential(t *testing.T, path string) time.Duration {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	must(t, unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0))
	began := time.Now()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 128<<10))
	must(t, err)
	return time.Since(began)
}
