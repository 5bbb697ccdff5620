package ublk

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"glidefs-appliance/backend/volume"
	"glidefs-appliance/frontends/frontendtest"

	"golang.org/x/sys/unix"
)

// TestBench prints what fio gets from a raw file, a loop device over it with direct I/O, and the block devices of a
// warm disk in each mode, all on the same file system. GLIDEFS_BENCH is how long each cell runs, in milliseconds.
func TestBench(t *testing.T) {
	ms := 0
	if _, err := fmt.Sscan(os.Getenv("GLIDEFS_BENCH"), &ms); err != nil {
		t.Log("GLIDEFS_BENCH is not set: nothing is measured")
		return
	}
	const size = 256 * mib
	dir := stateDir(t)
	raw := filepath.Join(dir, "raw")
	fill(t, raw, size, true)
	paths := map[string]string{"raw": raw, "loop": loopOver(t, raw)}
	order := []string{"raw", "loop"}
	servers := map[string]*Server{}
	for mode, zeroCopy := range modes(t) {
		s := openServer(t, zeroCopy)
		sub := filepath.Join(dir, mode)
		h := engine(t, sub, volume.Tuning{UploadAge: time.Hour})
		v := openVolume(t, h, "disk", size, 4096)
		v.Pause(true)
		dev := serve(t, s, mode, v)
		fill(t, dev.Path(), size, false)
		paths[mode], servers[mode] = dev.Path(), s
		order = append(order, mode)
	}
	for _, w := range []struct {
		rw        string
		bs, depth int
	}{
		{"randread", 4096, 1}, {"randwrite", 4096, 1}, {"randread", 4096, 32}, {"randwrite", 4096, 32}, {"read", 131072, 16}, {"write", 131072, 16},
	} {
		line := fmt.Sprintf("%-9s %6d qd%-2d", w.rw, w.bs, w.depth)
		for _, name := range order {
			enters := uint64(0)
			if s := servers[name]; s != nil {
				enters = s.enters()
			}
			r, err := frontendtest.FIO{File: paths[name], RW: w.rw, BS: w.bs, Depth: w.depth, Size: size, Runtime: time.Duration(ms) * time.Millisecond}.Run(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			line += fmt.Sprintf("  %s %.0f/s", name, r.IOPS)
			if s := servers[name]; s != nil {
				line += fmt.Sprintf(" (%.2f enters)", float64(s.enters()-enters)/(r.IOPS*float64(ms)/1000))
			}
		}
		t.Log(line)
	}
	for name, s := range servers {
		t.Logf("%s: %+v", name, s.Stats())
	}
}

func (s *Server) enters() (n uint64) {
	for _, w := range s.workers {
		n += w.ring.Enters()
	}
	return n
}

func fill(t *testing.T, path string, size int, create bool) {
	t.Helper()
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(path, flags|unix.O_DIRECT, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := alignedBytes(t, mib)
	for off := 0; off < size; off += mib {
		if _, err := f.WriteAt(p, int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

func loopOver(t *testing.T, file string) string {
	t.Helper()
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer ctl.Close()
	n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		t.Fatal(err)
	}
	back, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	c := unix.LoopConfig{Fd: uint32(back.Fd()), Size: 4096, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_DIRECT_IO | unix.LO_FLAGS_AUTOCLEAR}}
	if err := unix.IoctlLoopConfigure(int(dev.Fd()), &c); err != nil {
		t.Fatal(err)
	}
	return dev.Name()
}
