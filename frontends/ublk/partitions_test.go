package ublk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"glidefs-appliance/frontends/frontendtest"
	"glidefs-appliance/frontends/ublk/uring"
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

// TestWarm: while the kernel looks for partitions it reads nothing but frames that were read before, whose bytes are in
// the cache then.
func TestWarm(t *testing.T) {
	const frame = 64 << 10
	for what, table := range map[string]string{
		"none": "", "mbr": "label: dos\n1M 2M\n8M\n", "gpt": "label: gpt\n1M 2M\n8M\n",
		"logical": "label: dos\n1M 1M\n4M 20M E\n5M 1M\n8M 1M\n16M 1M\n",
	} {
		t.Run(what, func(t *testing.T) {
			eachMode(t, func(t *testing.T, zeroCopy bool) {
				s, disk := openServer(t, zeroCopy), &watched{MemDisk: tabled(t, table)}
				var warmed, cold sync.Map
				disk.read = func(off, n int64) {
					for at := off / frame; at < (off+n+frame-1)/frame; at++ {
						warmed.Store(at, true)
					}
				}
				s.control.inject(func(_ *uring.SQE, cl *call) {
					if cl.op == cmdStartDev {
						disk.mu.Lock()
						defer disk.mu.Unlock()
						disk.read = func(off, _ int64) {
							if _, is := warmed.Load(off / frame); !is {
								cold.Store(off, true)
							}
						}
					}
				})
				dev := serve(t, s, "disk", disk)
				cold.Range(func(off, _ any) bool {
					t.Errorf("the kernel has read at %d, which was not read before", off)
					return true
				})
				want := map[string]int{"none": 0, "mbr": 2, "gpt": 2, "logical": 5}[what]
				if got, _ := filepath.Glob(fmt.Sprintf("/sys/class/block/ublkb%d/ublkb%[1]dp*", dev.ID())); len(got) != want {
					t.Errorf("partitions %v, want %d", got, want)
				}
			})
		})
	}
}

// watched tells what is read.
type watched struct {
	*frontendtest.MemDisk
	mu   sync.Mutex
	read func(off, n int64)
}

func (w *watched) ReadAt(ctx context.Context, p []byte, off int64) error {
	w.mu.Lock()
	w.read(off, int64(len(p)))
	w.mu.Unlock()
	return w.MemDisk.ReadAt(ctx, p, off)
}

// tabled is a disk with what sfdisk makes of a table.
func tabled(t *testing.T, table string) *frontendtest.MemDisk {
	t.Helper()
	const size = 32 * mib
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	if table != "" {
		sfdisk := exec.Command("sfdisk", "--quiet", path)
		sfdisk.Stdin = strings.NewReader(table)
		if out, err := sfdisk.CombinedOutput(); err != nil {
			t.Fatalf("sfdisk (of util-linux or fdisk): %v: %s", err, out)
		}
	}
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := frontendtest.NewMemDisk(size, 512)
	for off := 0; off < size; off += mib {
		if err := d.WriteAt(t.Context(), image[off:off+mib], int64(off), false); err != nil {
			t.Fatal(err)
		}
	}
	return d
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
		if got := fmt.Sprint(names); got != "[add params warm serve start node partitions]" {
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
