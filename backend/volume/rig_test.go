package volume

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
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/vfs"
	"glidefs-appliance/backend/wlog"
)

// tb is what testing.T and rapid.T have in common.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
}

// rig is one host with small limits, so that sealing, eviction, recycling, merging and paging happen in short tests.
type rig struct {
	fs     vfs.FS
	dir    string
	st     store.Store
	boot   string
	state  byte
	log    int64 // budget
	cache  int64
	tuning Tuning

	h *Host
	c *cache.Cache
}

func newRig(fs vfs.FS, dir string) *rig {
	return &rig{
		fs: fs, dir: dir, st: mem.New(), boot: "boot1", state: 1, log: 512 << 10, cache: 2 << 20,
		tuning: Tuning{
			UploadAge: time.Hour, BatchBytes: 96 << 10, InlineBytes: 4 << 10, ReadTimeout: 10 * time.Second,
			Readahead: 256 << 10, TailPacks: 4, LevelBytes: 256 << 10, SegmentBytes: 64 << 10,
		},
	}
}

func newDiskRig(t testing.TB) *rig { return newRig(vfs.OS(), t.TempDir()) }

// start makes a new Host, as a daemon does at its start.
func (r *rig) start(t tb) *Host {
	t.Helper()
	for _, d := range []string{"logs", "cache"} {
		if err := r.fs.MkdirAll(filepath.Join(r.dir, d)); err != nil {
			t.Fatalf("%v", err)
		}
	}
	c, err := cache.Open(cache.Options{FS: r.fs, Dir: filepath.Join(r.dir, "cache"), Size: r.cache, SegmentSize: 512 << 10})
	if err != nil {
		t.Fatalf("open cache: %v", err)
	}
	r.c = c
	r.h = &Host{
		FS: r.fs, Logs: filepath.Join(r.dir, "logs"), BootID: r.boot, Store: r.st, Cache: c,
		Owner: manifest.Owner{State: [16]byte{r.state}, Host: fmt.Sprintf("host%d", r.state)},
		Pages: manifest.NewPages(r.st, 64), Budget: wlog.NewBudget(r.log), Tuning: r.tuning,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	return r.h
}

// open starts the host if need be and attaches the disk.
func (r *rig) open(t tb, name string, o OpenOptions) *Volume {
	t.Helper()
	if r.h == nil {
		r.start(t)
	}
	v, err := Open(context.Background(), r.h, name, o)
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	return v
}

// kill ends the host as kill -9 does: nothing is flushed or told to the store. With reboot the next start has another
// boot id.
func (r *rig) kill(v *Volume, reboot bool) {
	v.Kill(ErrClosed)
	_ = r.c.Close()
	if reboot {
		r.boot += "+"
	}
	r.h = nil
}

func (r *rig) close(t tb, v *Volume) {
	t.Helper()
	if err := v.Close(context.Background()); err != nil {
		t.Fatalf("close: %v", err)
	}
	_ = r.c.Close()
	r.h = nil
}

func mustSync(t tb, v *Volume) {
	t.Helper()
	if err := v.Sync(context.Background(), nil); err != nil {
		t.Fatalf("sync: %v", err)
	}
}

// compactNow returns when no step of compaction is due.
func (v *Volume) compactNow(t tb) {
	t.Helper()
	slot := v.host.shared().merging
	slot <- struct{}{}
	defer func() { <-slot }()
	if err := v.compact(context.Background()); err != nil {
		t.Fatalf("compact: %v", err)
	}
}
