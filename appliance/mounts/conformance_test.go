package mounts

import (
	"context"
	"testing"
	"time"

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
	serve := func(t *testing.T, d frontends.Disk) string {
		path, err := s.Add("disk", d, false)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := s.Remove(ctx, "disk"); err != nil {
				t.Error(err)
			}
		})
		return attach(t, path, LoopOptions{Sector: d.SectorSize(), ReadOnly: d.ReadOnly()}).Device()
	}
	frontendtest.Run(t, serve, frontendtest.NewMem)
}
