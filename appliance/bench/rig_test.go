package bench

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"testing"

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
		must(t, fs.MkdirAll(filepath.Join(dir, d)))
	}
	c, err := cache.Open(cache.Options{FS: fs, Dir: filepath.Join(dir, "cache"), Size: 4 << 30})
	must(t, err)
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
	must(t, err)
	t.Cleanup(func() { v.Kill(volume.ErrClosed) })
	return v
}

// fill writes the whole disk with data that does not compress, 1 MiB at a time.
func fill(t testing.TB, v *volume.Volume) {
	t.Helper()
	buf := make([]byte, 1<<20)
	rng := rand.NewChaCha8([32]byte{7})
	for off := int64(0); off < v.Size(); off += int64(len(buf)) {
		_, _ = rng.Read(buf)
		must(t, v.WriteAt(context.Background(), buf[:min(int64(len(buf)), v.Size()-off)], off, false))
	}
}

// logFor is a budget in which a disk of that size fits twice, once uploaded and once not, and little more: a log that
// may still grow does not recycle.
func logFor(size int64) int64 { return 2*size + size/4 + 256<<20 }

// settle uploads everything, so that all of the log is synced and can be given up for what is written next; then it
// holds the uploader.
func settle(t testing.TB, v *volume.Volume) {
	t.Helper()
	v.Pause(false)
	must(t, v.Sync(context.Background(), nil))
	v.Pause(true)
	runtime.GC()
}

// warm fills the disk until its log grows no more: what is written then goes to segments that were used before. All of
// the disk is in the log.
func warm(t testing.TB, v *volume.Volume) {
	t.Helper()
	for before := int64(-1); v.Status().LogBytes > before; {
		before = v.Status().LogBytes
		refill(t, v)
		if !full() {
			return
		}
	}
}

// refill brings all of the disk into the log, in order: what was written before may have been given up, and a store
// that forgets has not got it either.
func refill(t testing.TB, v *volume.Volume) {
	t.Helper()
	v.Pause(false)
	fill(t, v)
	settle(t, v)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
