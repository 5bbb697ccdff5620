package frontendtest

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"glidefs-appliance/frontends"

	"golang.org/x/sys/unix"
)

// FileDisk is a disk over one sparse file with the same offsets, and a frontends.Mapper. Writes are one pwrite, reads
// one pread: the least that any disk can cost.
type FileDisk struct {
	f      *os.File
	size   int64
	sector int
	// Split, when not 0, ends an extent at each multiple of it, as neighbouring segments do.
	Split atomic.Int64

	held atomic.Int64 // references handed out and not released
}

// NewFile makes a FileDisk in the test's folder and checks in the end that all references were released.
func NewFile(t *testing.T, size int64, sector int) frontends.Disk {
	d, err := OpenFileDisk(filepath.Join(t.TempDir(), "disk"), size, sector)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n := d.Held(); n != 0 {
			t.Errorf("%d references to the file were not released", n)
		}
		d.Close()
	})
	return d
}

// OpenFileDisk makes the file when it isn't there.
func OpenFileDisk(path string, size int64, sector int) (*FileDisk, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, err
	}
	return &FileDisk{f: f, size: size, sector: sector}, nil
}

func (d *FileDisk) Close() error { return d.f.Close() }

// Held counts the references to the file that are out.
func (d *FileDisk) Held() int64 { return d.held.Load() }

func (d *FileDisk) Size() int64     { return d.size }
func (d *FileDisk) SectorSize() int { return d.sector }
func (d *FileDisk) ReadOnly() bool  { return false }

func (d *FileDisk) ReadAt(_ context.Context, p []byte, off int64) error {
	if err := d.inRange(off, int64(len(p))); err != nil {
		return err
	}
	_, err := d.f.ReadAt(p, off)
	return err
}

func (d *FileDisk) WriteAt(_ context.Context, p []byte, off int64, fua bool) error {
	if err := d.inRange(off, int64(len(p))); err != nil {
		return err
	}
	if _, err := d.f.WriteAt(p, off); err != nil || !fua {
		return err
	}
	return unix.Fdatasync(int(d.f.Fd()))
}

func (d *FileDisk) Flush(context.Context) error { return unix.Fdatasync(int(d.f.Fd())) }

func (d *FileDisk) Discard(ctx context.Context, off, n int64) error {
	s := int64(d.sector)
	first, last := (off+s-1)/s*s, (off+n)/s*s
	if first >= last {
		return d.inRange(off, n)
	}
	return d.WriteZeroes(ctx, first, last-first)
}

func (d *FileDisk) WriteZeroes(_ context.Context, off, n int64) error {
	if err := d.inRange(off, n); err != nil || n == 0 {
		return err
	}
	return unix.Fallocate(int(d.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (d *FileDisk) inRange(off, n int64) error {
	if off < 0 || n < 0 || off > d.size-n {
		return frontends.ErrOutOfRange
	}
	return nil
}

// MapRead names the file itself; it is always local.
func (d *FileDisk) MapRead(off, n int64, plan *frontends.Plan) bool {
	if d.inRange(off, n) != nil {
		return false
	}
	fd := int(d.f.Fd())
	for n > 0 {
		l := n
		if split := d.Split.Load(); split > 0 {
			l = min(n, split-off%split)
		}
		plan.Extents = append(plan.Extents, frontends.Extent{FD: fd, Direct: fd, Off: off, Len: l})
		off, n = off+l, n-l
	}
	d.held.Add(1)
	plan.Refs = append(plan.Refs, d)
	return true
}

// Release makes the disk its own reference.
func (d *FileDisk) Release() { d.held.Add(-1) }
