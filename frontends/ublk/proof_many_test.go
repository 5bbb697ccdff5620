package ublk

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manyDisks is GLIDEFS_DEVICES.
func manyDisks() int {
	n := 32
	_, _ = fmt.Sscan(os.Getenv("GLIDEFS_DEVICES"), &n)
	return n
}

// storming is how many requests meet the buffers of a daemon at once, of 256 KiB each.
const (
	storming   = 128
	stormPiece = 256 << 10
)

// fleet is the disks of a daemon and what was written to the first blocks of each.
type fleet []*area

func newFleet(paths []string) fleet {
	f := make(fleet, len(paths))
	for i := range f {
		f[i] = newArea(nil, uint64(i+1), 0, stormPiece/4096)
	}
	return f
}

// each does op on all disks, some at a time.
func (f fleet) each(t *testing.T, paths []string, op func(a *area, p []byte) error) {
	var wg sync.WaitGroup
	turns := make(chan struct{}, storming)
	for i, a := range f {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			if err := a.openFor(paths[i], op); err != nil {
				t.Errorf("%s: %v", paths[i], err)
			}
		})
	}
	wg.Wait()
}

func (a *area) openFor(path string, op func(a *area, p []byte) error) (err error) {
	p, err := anonymous(stormPiece)
	if err != nil {
		return err
	}
	defer munmap(p)
	if a.f, err = os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0); err != nil {
		return err
	}
	return errors.Join(op(a, p), a.f.Close())
}

// TestManyKilled: a daemon serves GLIDEFS_DEVICES real disks from its few threads and buffers, is killed while all of
// them have something to do, and its successor takes all of them back: nobody gets an error, what was written is there.
// What a device costs, what recovery takes and what taking one away takes while the others stay is printed.
func TestManyKilled(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		state, began := stateDir(t), time.Now()
		d := startKind(t, "many", state, zeroCopy)
		paths := strings.Fields(d.path)
		all := newFleet(paths)
		var idle, busy, waits, most int64
		d.ask(t, "memory", &idle)
		t.Logf("%d disks and devices made in %v (%s), %d KiB of memory for each device", len(paths), time.Since(began), d.times(t), idle/int64(len(paths)))
		all.each(t, paths, func(a *area, p []byte) error { return a.write(p, 0, 1) })
		d.ask(t, "memory", &busy)
		d.ask(t, "buffers", &most, &waits)
		t.Logf("all written to, %d at once: %d KiB more; all buffers are %d KiB; %d requests waited for one", storming, busy-idle, most, waits)
		if busy-idle > most+int64(64*len(paths))+32<<10 {
			t.Errorf("%d KiB more memory for writes to all of them", busy-idle)
		}
		_, before := doneBy(t, paths[0])
		var users sync.WaitGroup
		users.Go(func() { all.each(t, paths, func(a *area, p []byte) error { return a.write(p, 0, 2) }) })
		awaitThat(t, paths[0]+" answers", func() bool {
			_, now := doneBy(t, paths[0])
			return now > before
		})
		began = time.Now()
		d.kill()
		d = startKind(t, "many", state, zeroCopy)
		t.Logf("taken back %v after the kill (%s)", time.Since(began), d.times(t))
		if d.path != strings.Join(paths, " ") {
			t.Errorf("%s came back as %s", paths, d.path)
		}
		users.Wait()
		all.each(t, paths, func(a *area, p []byte) error { return a.read(p, 0) })
		var us int64
		var failed string
		d.ask(t, "remove disk0", &us, &failed)
		t.Logf("one of %d taken away in %d us: %s", len(paths), us, failed)
		began = time.Now()
		d.stop(t)
		t.Logf("the others in %v", time.Since(began))
	})
}

func (d *daemon) times(t *testing.T) string {
	t.Helper()
	var settled, opened, made string
	d.ask(t, "times", &settled, &opened, &made)
	return "settled " + settled + ", disks opened " + opened + ", devices " + made
}
