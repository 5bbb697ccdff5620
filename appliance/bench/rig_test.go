package bench

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"glidefs-appliance/backend/cache"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/vfs"
	"glidefs-appliance/backend/volume"
	"glidefs-appliance/backend/wlog"
)

// host is a daemon's share of the engine on the real disk, as the appliance makes it.
func host(t testing.TB, st store.Store, log int64, tuning volume.Tuning) *volume.Host {
	t.Helper()
	dir := t.TempDir()
	fs := vfs.OS()
	for _, d := range []string{"logs", "cache"} {
		if err := fs.MkdirAll(filepath.Join(dir, d)); err != nil {
			t.Fatal(err)
		}
	}
	c, err := cache.Open(cache.Options{FS: fs, Dir: filepath.Join(dir, "cache"), Size: 4 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &volume.Host{
		FS: fs, Logs: filepath.Join(dir, "logs"), BootID: "bench", Store: st, Cache: c,
		Owner: manifest.Owner{State: [16]byte{1}, Host: "bench"}, Pages: manifest.NewPages(st, 256),
		Budget: wlog.NewBudget(log), Tuning: tuning, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func openDisk(t testing.TB, h *volume.Host, name string, size int64) *volume.Volume {
	t.Helper()
	v, err := volume.Open(context.Background(), h, name, volume.OpenOptions{Create: size})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Kill(volume.ErrClosed) })
	return v
}

// fill writes the whole disk with data that does not compress.
func fill(t testing.TB, v *volume.Volume) {
	t.Helper()
	buf := make([]byte, 1<<20)
	rng := rand.NewChaCha8([32]byte{7})
	for off := int64(0); off < v.Size(); off += int64(len(buf)) {
		_, _ = rng.Read(buf)
		if err := v.WriteAt(context.Background(), buf[:min(int64(len(buf)), v.Size()-off)], off, false); err != nil {
			t.Fatal(err)
		}
	}
}

// recycle uploads everything and writes the disk once more, so that the log goes on in segments that were written
// before; then it holds the uploader.
func recycle(t testing.TB, v *volume.Volume) {
	t.Helper()
	v.Pause(false)
	fill(t, v)
	if err := v.Sync(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	v.Pause(true)
}

// timed runs fn again and again for d and returns seconds per call.
func timed(t testing.TB, d time.Duration, fn func() error) float64 {
	t.Helper()
	began, n := time.Now(), 0
	for n%64 != 0 || time.Since(began) < d {
		if err := fn(); err != nil {
			t.Fatal(err)
		}
		n++
	}
	return time.Since(began).Seconds() / float64(n)
}

// turns runs both sides in turns, rounds times, and returns their medians.
func turns(rounds int, ours, ref func() float64) (o, r float64) {
	var os, rs []float64
	for range rounds {
		os, rs = append(os, ours()), append(rs, ref())
	}
	return median(os), median(rs)
}
