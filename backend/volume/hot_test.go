package volume

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// hotVolume is a disk of 256 MiB whose every sector is in the log, page-cache-hot; the uploader is paused.
func hotVolume(t testing.TB, size int64) *Volume {
	r := newDiskRig(t)
	r.log, r.tuning = 4*size+(64<<20), Tuning{UploadAge: time.Hour}
	v := r.open(t, "hot", OpenOptions{Create: size})
	v.Pause(true)
	t.Cleanup(func() { v.Kill(ErrClosed); _ = r.c.Close() })
	buf := make([]byte, 1<<20)
	for i := range buf {
		buf[i] = byte(i * 7)
	}
	for off := int64(0); off < size; off += int64(len(buf)) {
		if err := v.WriteAt(context.Background(), buf, off, false); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func TestNoAllocationOnHotPaths(t *testing.T) {
	v := hotVolume(t, 16<<20)
	ctx, p, rng := context.Background(), make([]byte, 4096), rand.New(rand.NewPCG(1, 2))
	off := func() int64 { return rng.Int64N(v.Size()/4096) * 4096 }
	for name, fn := range map[string]func() error{
		"write": func() error { return v.WriteAt(ctx, p, off(), false) },
		"read":  func() error { return v.ReadAt(ctx, p, off()) },
		"read of several places": func() error {
			return v.ReadAt(ctx, p[:4096], min(off()+512, v.Size()-4096))
		},
	} {
		if n := testing.AllocsPerRun(1000, func() {
			if err := fn(); err != nil {
				t.Fatal(err)
			}
		}); n >= 1 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

const hotSize = 256 << 20

func hotFile(b *testing.B) *os.File {
	f, err := os.Create(filepath.Join(b.TempDir(), "bare"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	buf := make([]byte, 1<<20)
	for off := int64(0); off < hotSize; off += int64(len(buf)) {
		if _, err := f.WriteAt(buf, off); err != nil {
			b.Fatal(err)
		}
	}
	return f
}

func benchHot(b *testing.B, fn func(p []byte, off int64) error) {
	p, rng := make([]byte, 4096), rand.New(rand.NewPCG(1, 2))
	b.SetBytes(4096)
	for b.Loop() {
		if err := fn(p, rng.Int64N(hotSize/4096)*4096); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHotWrite(b *testing.B) {
	b.Run("volume", func(b *testing.B) {
		v := hotVolume(b, hotSize)
		benchHot(b, func(p []byte, off int64) error { return v.WriteAt(context.Background(), p, off, false) })
	})
	b.Run("bare", func(b *testing.B) {
		f := hotFile(b)
		benchHot(b, func(p []byte, off int64) error { _, err := f.WriteAt(p, off); return err })
	})
}

func BenchmarkHotRead(b *testing.B) {
	b.Run("volume", func(b *testing.B) {
		v := hotVolume(b, hotSize)
		benchHot(b, func(p []byte, off int64) error { return v.ReadAt(context.Background(), p, off) })
	})
	b.Run("bare", func(b *testing.B) {
		f := hotFile(b)
		benchHot(b, func(p []byte, off int64) error { _, err := f.ReadAt(p, off); return err })
	})
}
