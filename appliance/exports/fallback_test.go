package exports

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"glidefs-appliance/appliance/statedir"
	"glidefs-appliance/backend/cache"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/vfs"
	"glidefs-appliance/backend/volume"
	"glidefs-appliance/backend/wlog"
	"glidefs-appliance/frontends/ublk"
)

// TestFallBack: where a block device cannot be made after all, whatever the kernel says then, the disk is a file, and the reason
// is kept for status. Who has asked for a block device, or had one, gets the error.
func TestFallBack(t *testing.T) {
	m := &Manager{}
	dir := t.TempDir()
	m.o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	m.front.init(statedir.Dir(dir).Fuse(), m.o.Log, m.panicked)
	m.blocks.owner, m.blocks.log, m.blocks.onPanic = t.Name(), m.o.Log, m.panicked
	if s, err := ublk.Open(ublk.Options{Owner: t.Name()}); err == nil { // a host with ublk: a server that makes no device
		m.blocks.server = s
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	vol := scratchVolume(t, dir)
	for _, c := range []choice{{kind: ublkZero, asked: true}, {kind: ublkCopy, kept: true}} {
		if path, _, err := m.serve(t.Context(), vol, c, false); err == nil {
			t.Errorf("%+v: served as %s", c, path)
		}
	}
	for _, kind := range []string{ublkZero, ublkCopy} {
		path, is, err := m.serve(t.Context(), vol, choice{kind: kind, why: "the kernel offers it"}, false)
		if err != nil {
			t.Fatal(err)
		}
		_, told, ok := strings.Cut(is.why, "ublk failed: ")
		if is.kind != fuseFile || filepath.Dir(path) != m.front.dir || !ok || told == "" {
			t.Errorf("%s: %s as %+v", kind, path, is)
		}
		if err := m.front.remove(t.Context(), vol.Name(), false); err != nil {
			t.Error(err)
		}
	}
	m.blocks.shut(t.Context(), nil)
}

func scratchVolume(t *testing.T, dir string) *volume.Volume {
	t.Helper()
	fs, st := vfs.OS(), mem.New()
	for _, d := range []string{"logs", "cache"} {
		if err := fs.MkdirAll(filepath.Join(dir, d)); err != nil {
			t.Fatal(err)
		}
	}
	c, err := cache.Open(cache.Options{FS: fs, Dir: filepath.Join(dir, "cache"), Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	h := &volume.Host{
		FS: fs, Logs: filepath.Join(dir, "logs"), BootID: "boot", Store: st, Cache: c, Owner: manifest.Owner{State: [16]byte{1}, Host: "test"},
		Pages: manifest.NewPages(st, 16), Budget: wlog.NewBudget(64 << 20), Log: slog.New(slog.DiscardHandler),
	}
	v, err := volume.Open(t.Context(), h, "disk", volume.OpenOptions{Create: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Kill(volume.ErrClosed) })
	return v
}
