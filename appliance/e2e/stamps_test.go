package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

const sector = 4096

// stamp fills a sector with bytes that depend on its number and on the write they come from, all of them.
func stamp(p []byte, number int, version uint64) {
	x := version
	for i := 0; i < sector; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], x)
		x = mix(x + uint64(number)<<20 + uint64(i))
	}
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// stamped tells which write a sector comes from, 0 when it is all zeros. Anything else is an error.
func stamped(p []byte, number int) (version uint64, err error) {
	version = binary.LittleEndian.Uint64(p)
	want := make([]byte, sector)
	if version != 0 {
		stamp(want, number, version)
	}
	if string(want) != string(p[:sector]) {
		return 0, fmt.Errorf("sector %d holds neither zeros nor one write of its own (version %#x)", number, version)
	}
	return version, nil
}

// aligned returns n bytes for O_DIRECT.
func aligned(n int) []byte {
	b := make([]byte, n+sector)
	skip := (sector - int(uintptr(unsafe.Pointer(&b[0]))%sector)) % sector
	return b[skip : skip+n : skip+n]
}

// openDirect opens a disk past the page cache.
func openDirect(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	must(t, err)
	return f
}

// readVersions reads n sectors from a disk's beginning.
func readVersions(t testing.TB, path string, n int) []uint64 {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	must(t, err)
	defer f.Close()
	p := aligned(n * sector)
	if _, err := f.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	versions := make([]uint64, n)
	for i := range versions {
		v, err := stamped(p[i*sector:], i)
		must(t, err)
		versions[i] = v
	}
	return versions
}

// stamps are the first sectors of a disk and what was written to them: of each the version acknowledged last and the
// one tried last. Guarded by who writes: each sector has one writer at a time.
type stamps struct {
	acked, tried []uint64
	version      atomic.Uint64
	acks         atomic.Int64
}

func newStamps(n int) *stamps { return &stamps{acked: make([]uint64, n), tried: make([]uint64, n)} }

// maxRun is the longest write, in sectors.
const maxRun = 8

// write stamps random runs of sectors from several goroutines until each has met an error or ctx ends, and returns the
// first error. With sync a write counts as acknowledged after the fsync that follows it.
func (s *stamps) write(ctx context.Context, path string, sync bool) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	const writers = 4
	return together(writers, func(i int) error {
		part := len(s.acked) / writers
		p := aligned(maxRun * sector)
		for ctx.Err() == nil {
			n := 1 + rand.IntN(maxRun)
			first := i*part + rand.IntN(part-n)
			if err := s.writeOne(f, p, first, n, sync); err != nil {
				return err
			}
		}
		return nil
	})
}

// together runs n goroutines and returns the first error.
func together(n int, do func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = do(i) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *stamps) writeOne(f *os.File, p []byte, first, n int, sync bool) error {
	v := s.version.Add(1)
	for i := first; i < first+n; i++ {
		stamp(p[(i-first)*sector:], i, v)
		s.tried[i] = v
	}
	_, err := f.WriteAt(p[:n*sector], int64(first)*sector)
	if err == nil && sync {
		err = f.Sync()
	}
	if err != nil {
		return err
	}
	for i := first; i < first+n; i++ {
		s.acked[i] = v
	}
	s.acks.Add(1)
	return nil
}

// fill writes every sector once, in order, and must not fail.
func (s *stamps) fill(t testing.TB, path string) {
	t.Helper()
	f := openDirect(t, path)
	defer f.Close()
	p := aligned(maxRun * sector)
	for first := 0; first < len(s.acked); first += maxRun {
		must(t, s.writeOne(f, p, first, min(maxRun, len(s.acked)-first), false))
	}
	must(t, f.Sync())
}

// check reads all sectors: each must be as acknowledged, or as tried later. What is found counts as acknowledged then.
func (s *stamps) check(t testing.TB, path string) {
	t.Helper()
	for i, v := range readVersions(t, path, len(s.acked)) {
		if v != s.acked[i] && v != s.tried[i] {
			t.Fatalf("sector %d is of write %d; write %d was acknowledged and %d tried last", i, v, s.acked[i], s.tried[i])
		}
		s.acked[i], s.tried[i] = v, v
	}
}

// daemonDied tells whether an error is what users of a file get whose FUSE daemon is dead or has given the disk up.
func daemonDied(err error) bool {
	for _, e := range []error{syscall.EIO, syscall.ENOTCONN, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
