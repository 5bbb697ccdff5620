package e2e

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"glidefs-appliance/backend/cache"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/open"
	"glidefs-appliance/backend/vfs"
	"glidefs-appliance/backend/volume"
	"glidefs-appliance/backend/wlog"
	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/frontendtest"
	"glidefs-appliance/frontends/fuse"
)

// TestConformance: the suite that every frontend runs, over real volumes with a store (P7).
func TestConformance(t *testing.T) {
	t.Parallel()
	server, err := fuse.Mount(scratch(t), fuse.Options{})
	must(t, err)
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	})
	h := newHost(t)
	serve := func(t *testing.T, d frontends.Disk) string {
		path, err := server.Add("disk", d, false)
		must(t, err)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			must(t, server.Remove(ctx, "disk"))
		})
		return path
	}
	n := 0
	disk := func(t *testing.T, size int64, sector int) frontends.Disk {
		n++
		v, err := volume.Open(context.Background(), h, fmt.Sprintf("d%d", n), volume.OpenOptions{Create: size, Sector: sector})
		must(t, err)
		t.Cleanup(func() {
			v.Kill(volume.ErrClosed) // the disk is not needed any more: no upload
			_ = v.Close(context.Background())
		})
		return v
	}
	frontendtest.Run(t, serve, disk)
}

// newHost is what a daemon's disks share, with limits so small that uploads, evictions and merges happen all the time.
func newHost(t *testing.T) *volume.Host {
	t.Helper()
	dir, objects := scratch(t), folder(t)
	impl, err := open.Open(objects.url, open.Options{})
	must(t, err)
	s := store.NewStack(impl, store.StackOptions{})
	c, err := cache.Open(cache.Options{FS: vfs.OS(), Dir: filepath.Join(dir, "cache"), Size: 64 << 20})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	h := &volume.Host{
		FS: vfs.OS(), Logs: filepath.Join(dir, "logs"), BootID: "boot", Owner: manifest.Owner{Host: "e2e"},
		Store: s, Cache: c, Pages: manifest.NewPages(s, 16), Budget: wlog.NewBudget(8 << 20),
		Tuning: volume.Tuning{UploadAge: 20 * time.Millisecond, BatchBytes: 1 << 20, InlineBytes: 4 << 10, TailPacks: 4, SegmentBytes: 1 << 20},
		Log:    slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if testing.Short() {
		h.Budget, h.Tuning = wlog.NewBudget(1<<30), volume.Tuning{}
	}
	return h
}
