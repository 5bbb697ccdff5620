package ublk

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"glidefs-appliance/backend/cache"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/vfs"
	"glidefs-appliance/backend/volume"
	"glidefs-appliance/backend/wlog"
	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/frontendtest"
)

// stateDir is a folder on a real disk: in the lab the root is an overlay in memory.
func stateDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("LAB_STATE")
	if dir == "" {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(dir, "ublk-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// engine is what a daemon has of it.
func engine(t *testing.T, dir string, tuning volume.Tuning) *volume.Host {
	t.Helper()
	return tightEngine(t, dir, 512<<20, 256<<20, tuning)
}

// tightEngine is one with that many bytes for the logs and the cache.
func tightEngine(t *testing.T, dir string, log, clean int64, tuning volume.Tuning) *volume.Host {
	t.Helper()
	fs, st := vfs.OS(), mem.New()
	for _, d := range []string{"logs", "cache"} {
		if err := fs.MkdirAll(filepath.Join(dir, d)); err != nil {
			t.Fatal(err)
		}
	}
	c, err := cache.Open(cache.Options{FS: fs, Dir: filepath.Join(dir, "cache"), Size: clean})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &volume.Host{
		FS: fs, Logs: filepath.Join(dir, "logs"), BootID: "boot", Store: st, Cache: c,
		Owner: manifest.Owner{State: [16]byte{1}, Host: "test"}, Pages: manifest.NewPages(st, 256),
		Budget: wlog.NewBudget(log), Tuning: tuning, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func openVolume(t *testing.T, h *volume.Host, name string, size int64, sector int) *volume.Volume {
	t.Helper()
	v, err := volume.Open(context.Background(), h, name, volume.OpenOptions{Create: size, Sector: sector})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Kill(volume.ErrClosed) })
	return v
}

// TestVolumeConformance is the suite over the real engine: its writes are placed, its reads mapped.
func TestVolumeConformance(t *testing.T) {
	for mode, zeroCopy := range modes(t) {
		t.Run(mode, func(t *testing.T) {
			s := openServer(t, zeroCopy)
			disk := func(t *testing.T, size int64, sector int) frontends.Disk {
				return openVolume(t, engine(t, stateDir(t), volume.Tuning{}), "disk", size, sector)
			}
			frontendtest.Run(t, func(t *testing.T, d frontends.Disk) string {
				return serve(t, s, t.Name(), d).Path()
			}, disk)
			st := s.Stats()
			t.Logf("%+v", st)
			if st.Inline == 0 || zeroCopy && st.ZeroCopied == 0 || !zeroCopy && st.ZeroCopied > 0 {
				t.Error("requests did not go the way they should")
			}
		})
	}
}

// TestNoCopy: of long requests to a zero-copy device no byte passes through this process, of those to another each does.
func TestNoCopy(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		const requests, size = 64, 64 << 10
		s := openServer(t, zeroCopy)
		v := openVolume(t, engine(t, stateDir(t), volume.Tuning{UploadAge: time.Hour}), "disk", requests*size, 4096)
		f, p := openDirect(t, serve(t, s, "disk", v).Path()), alignedBytes(t, size)
		defer f.Close()
		before := s.Stats()
		for i := range int64(requests) {
			if _, err := f.WriteAt(p, i*size); err != nil {
				t.Fatal(err)
			}
			if _, err := f.ReadAt(p, i*size); err != nil {
				t.Fatal(err)
			}
		}
		after := s.Stats()
		want := map[bool]uint64{zeroCopy: 2 * requests * size}
		if moved, copied := after.ZeroCopied-before.ZeroCopied, after.Copied-before.Copied; moved != want[true] || copied != want[false] {
			t.Errorf("%d bytes were moved by the kernel and %d copied, want %d and %d: %+v", moved, copied, want[true], want[false], after)
		}
	})
}
