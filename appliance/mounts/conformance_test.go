package mounts

import (
	"fmt"
	"testing"

	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/frontendtest"
	"glidefs-appliance/frontends/fuse"
)

// TestConformance: what holds for the file holds for the block device that a mount puts over it.
func TestConformance(t *testing.T) {
	s, err := fuse.Mount(t.TempDir(), fuse.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Unmount(); err != nil {
			t.Error(err)
		}
	})
	n := 0
	serve := func(t *testing.T, d frontends.Disk) string {
		n++
		name := fmt.Sprintf("disk%d", n) // a loop device lets go of its file late: the next disk does not wait for that
		path, err := s.Add(name, d, false)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { takeAway(t, s, name) })
		return attach(t, path, LoopOptions{Sector: d.SectorSize(), ReadOnly: d.ReadOnly()}).Device()
	}
	frontendtest.Run(t, serve, frontendtest.NewMem)
}
