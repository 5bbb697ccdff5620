package ublk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/ublk/uring"

	"golang.org/x/sys/unix"
)

const (
	// testedPath keeps what self-tests said. /run is empty after a boot.
	testedPath = "/run/glidefs-appliance/ublk-tested"
	testLimit  = time.Second
	testBytes  = 1 << 20
)

// Verified is Probe and, once per boot and kernel, a self-test of what it found: writes to a scratch device arrive in
// its file, reads bring back what is there. A kernel that fails loses the mode instead of corrupting disks with it.
func Verified() Support { return verify(Probe(), tested) }

// verify takes away what fails its test.
func verify(s Support, test func(zeroCopy bool) error) Support {
	if s.ZeroCopy {
		if err := test(true); err != nil {
			s.ZeroCopy, s.Reason = false, fmt.Sprintf("zero copy failed its self-test on this kernel: %v", err)
		}
	}
	if s.UserCopy && !s.ZeroCopy {
		if err := test(false); err != nil {
			s.UserCopy, s.Reason = false, fmt.Sprintf("USER_COPY failed its self-test on this kernel: %v", err)
		}
	}
	return s
}

// Tested is the self-test of one way, for a host on which Probe found it.
func Tested(zeroCopy bool) error { return tested(zeroCopy) }

// tested runs the self-test unless one was passed before. Failures are tried again.
func tested(zeroCopy bool) error {
	line := fmt.Sprintf("%s zero=%t ok\n", release(), zeroCopy)
	before, _ := os.ReadFile(testedPath)
	if strings.Contains(string(before), line) {
		return nil
	}
	if err := selfTest(zeroCopy); err != nil {
		return err
	}
	err := os.MkdirAll(filepath.Dir(testedPath), 0o755)
	if err == nil {
		_ = os.WriteFile(testedPath, append(before, line...), 0o644) // else the next daemon tests again
	}
	return nil
}

func selfTest(zeroCopy bool) (err error) {
	s, err := Open(Options{Owner: "self-test", ZeroCopy: zeroCopy, Workers: 1, Buffers: 2})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	_, _ = s.Sweep(nil) // of a test that was killed
	fd, err := unix.MemfdCreate("ublk-self-test", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, testBytes); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), nodeLimit)
	defer cancel()
	name := fmt.Sprint(os.Getpid(), " ", time.Now().UnixNano())
	dev, err := s.Add(ctx, name, scratch(fd), AddOptions{Bare: true})
	if err != nil {
		return err
	}
	if zeroCopy && !dev.ZeroCopy() {
		err = errors.New("the kernel did not grant it")
	} else {
		err = inTime(func() error { return exercise(dev.Path(), fd) })
	}
	return errors.Join(err, s.Remove(ctx, name, true))
}

// inTime gives up on fn after testLimit; its goroutine ends when the device is taken away.
func inTime(fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-time.After(testLimit):
		return fmt.Errorf("no answer within %v", testLimit)
	}
}

// exercise writes through the device and looks into the file, then the other way around.
func exercise(path string, fd int) error {
	dev, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(dev)
	mem, err := uring.Map(2 * testBytes)
	if err != nil {
		return err
	}
	defer unix.Munmap(mem)
	for i, r := range [][2]int64{{0, 4096}, {8192, 128 << 10}, {512 << 10, 256 << 10}} {
		out, in := mem[:r[1]], mem[testBytes:][:r[1]]
		for j := range out {
			out[j] = byte(j>>8 + j*7 + i)
		}
		if err := through(dev, fd, out, in, r[0]); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		for j := range out {
			out[j] ^= 0xa5
		}
		if err := through(fd, dev, out, in, r[0]); err != nil {
			return fmt.Errorf("read: %w", err)
		}
	}
	return nil
}

// through writes to one descriptor and expects the same from the other.
func through(to, from int, out, in []byte, off int64) error {
	if n, err := unix.Pwrite(to, out, off); n != len(out) {
		return fmt.Errorf("%d of %d bytes: %w", n, len(out), err)
	}
	if n, err := unix.Pread(from, in, off); n != len(in) {
		return fmt.Errorf("%d of %d bytes back: %w", n, len(in), err)
	}
	if !bytes.Equal(in, out) {
		return errors.New("other bytes arrived than were sent")
	}
	return nil
}

// scratch is a disk in a file, with every capability: requests go the ways that those of real disks go.
type scratch int

func (f scratch) Size() int64     { return testBytes }
func (f scratch) SectorSize() int { return 4096 }
func (f scratch) ReadOnly() bool  { return false }

func (f scratch) ReadAt(_ context.Context, p []byte, off int64) error {
	_, err := unix.Pread(int(f), p, off)
	return err
}

func (f scratch) WriteAt(_ context.Context, p []byte, off int64, _ bool) error {
	_, err := unix.Pwrite(int(f), p, off)
	return err
}

func (f scratch) Flush(context.Context) error                     { return nil }
func (f scratch) Discard(context.Context, int64, int64) error     { return nil }
func (f scratch) WriteZeroes(context.Context, int64, int64) error { return errors.ErrUnsupported }

func (f scratch) MapRead(off, n int64, plan *frontends.Plan) bool {
	plan.Extents = append(plan.Extents, frontends.Extent{FD: int(f), Direct: int(f), Off: off, Len: n})
	return true
}

func (f scratch) TryReserve(off, n int64, place *frontends.Placement) bool {
	place.Extents = append(place.Extents[:0], frontends.Extent{FD: int(f), Direct: int(f), Off: off, Len: n})
	return true
}

func (f scratch) Reserve(_ context.Context, off, n int64, place *frontends.Placement) error {
	f.TryReserve(off, n, place)
	return nil
}

func (f scratch) Commit([]frontends.Write) error { return nil }
func (f scratch) Abandon(*frontends.Placement)   {}

var (
	_ frontends.Mapper = scratch(0)
	_ frontends.Placer = scratch(0)
)
