package fuse

import (
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"glidefs-appliance/frontends/frontendtest"
	"glidefs-appliance/frontends/fuse/barest"
)

// TestBench compares this frontend over a plain file with the barest go-fuse file over another. By default each run is
// so short that it only proves that the bench works; GLIDEFS_BENCH=10s makes it measure.
func TestBench(t *testing.T) {
	c := frontendtest.Comparison{Rows: frontendtest.Rows, Size: 16 << 20, Runtime: 100 * time.Millisecond, Rounds: 1}
	if v := os.Getenv("GLIDEFS_BENCH"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatal(err)
		}
		c.Size, c.Runtime, c.Rounds = 1<<30, d, 5
	}
	c.Ours, c.Reference = serveFile(t, c.Size), serveBarest(t, c.Size)
	ratios, err := c.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := frontendtest.Print(&b, ratios); err != nil {
		t.Fatal(err)
	}
	t.Logf("acknowledged in the page cache\n%s", &b)
}

func serveFile(t *testing.T, size int64) string {
	s := mount(t, Options{})
	path := filled(t, size)
	d, err := frontendtest.OpenFileDisk(path, size, 4096)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		remove(t, s, "disk")
		d.Close()
	})
	return add(t, s, "disk", d)
}

func serveBarest(t *testing.T, size int64) string {
	f, err := os.OpenFile(filled(t, size), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, path, err := barest.Mount(t.TempDir(), f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Unmount(); err != nil {
			t.Error(err)
		}
		f.Close()
	})
	return path
}

// filled makes a file of random bytes, all in the page cache.
func filled(t *testing.T, size int64) string {
	f, err := os.Create(filepath.Join(t.TempDir(), "backing"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.Reader, size); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}
