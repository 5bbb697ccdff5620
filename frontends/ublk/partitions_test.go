package ublk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"

	"glidefs-appliance/frontends/frontendtest"
)

// partitioned is a disk whose first partition is its second half.
func partitioned(t *testing.T) *frontendtest.MemDisk {
	t.Helper()
	d := frontendtest.NewMemDisk(2*mib, 512)
	mbr := make([]byte, 512)
	entry := mbr[446:]
	entry[4] = 0x83
	binary.LittleEndian.PutUint32(entry[8:], mib/512)
	binary.LittleEndian.PutUint32(entry[12:], mib/512)
	mbr[510], mbr[511] = 0x55, 0xaa
	if err := d.WriteAt(t.Context(), mbr, 0, true); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestPartitions: they are there when Add returns, on every kernel and every time: some kernels look for them on a thread
// of their own. A bare disk is not searched, where the kernel can be told.
func TestPartitions(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		s := openServer(t, zeroCopy)
		for range 10 {
			searched(t, s, AddOptions{}, true)
		}
		searched(t, s, AddOptions{Bare: true}, !s.offers(flagNoPartScan))
	})
}

// searched wants the partition of a new device to be there, or not.
func searched(t *testing.T, s *Server, o AddOptions, want bool) {
	t.Helper()
	dev, err := s.Add(soon(t), "disk", partitioned(t), o)
	if err != nil {
		t.Fatal(err)
	}
	_, err = os.Stat(fmt.Sprintf("/sys/class/block/ublkb%d/ublkb%[1]dp1", dev.ID()))
	if got := err == nil; got != want {
		t.Errorf("%+v: a partition is there: %t (%v)", o, got, err)
	}
	if err := s.Remove(soon(t), "disk", false); err != nil {
		t.Error(err)
	}
}

// TestCounts: what a device did comes out of the server.
func TestCounts(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		s := openServer(t, zeroCopy)
		f := openDirect(t, serve(t, s, "disk", frontendtest.NewMemDisk(mib, 4096)).Path())
		before := s.Sizes()["disk"]
		p := alignedBytes(t, 64<<10)
		for _, n := range []int{4096, 8192, 64 << 10} {
			if _, err := f.WriteAt(p[:n], 0); err != nil {
				t.Fatal(err)
			}
			if _, err := f.ReadAt(p[:n], 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		sizes := s.Sizes()["disk"]
		for op := range 2 {
			for _, bucket := range []int{0, 1, 4} {
				if n := sizes[op].Count[bucket] - before[op].Count[bucket]; n != 1 {
					t.Errorf("op %d: %d requests in bucket %d", op, n, bucket)
				}
			}
			if n := sizes[op].Bytes - before[op].Bytes; n != 76<<10 {
				t.Errorf("op %d: %d bytes", op, n)
			}
		}
		st := s.Stats()
		if st.Deferred < 6 || st.Copied < 2*76<<10 { // a disk in memory is no Mapper: all goes through goroutines
			t.Errorf("%+v", st)
		}
		var names []string
		for _, step := range st.Steps {
			names = append(names, step.Name)
			if step.Count != 1 || step.Total <= 0 || step.Most != step.Total {
				t.Errorf("%+v", step)
			}
		}
		if got := fmt.Sprint(names); got != "[add params serve start node partitions]" {
			t.Errorf("steps %s", got)
		}
	})
}

// TestBufferWaits: a request that finds no buffer is counted, and is served when there is one.
func TestBufferWaits(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		s, err := Open(Options{Owner: t.Name() + strconv.Itoa(os.Getpid()), ZeroCopy: zeroCopy, Workers: 1, Buffers: 2})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		spy := frontendtest.Watch(frontendtest.NewMemDisk(mib, 4096))
		dev, err := s.Add(soon(t), "disk", spy, AddOptions{})
		if err != nil {
			t.Fatal(err)
		}
		f := openDirect(t, dev.Path())
		held := make(chan struct{})
		spy.Hook(func(context.Context, string) error {
			<-held
			return nil
		})
		const n = 4
		done := make(chan error)
		for i := range n {
			p := alignedBytes(t, 4096)
			go func() {
				_, err := f.WriteAt(p, int64(i)*8192)
				done <- err
			}()
		}
		eventually(t, "requests wait for buffers", func() bool { return s.Stats().BufferWait == n-1 }) // one of two is for short ones
		close(held)
		for range n {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if err := errors.Join(f.Close(), s.Remove(soon(t), "disk", false)); err != nil {
			t.Error(err)
		}
	})
}
