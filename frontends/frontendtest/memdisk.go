package frontendtest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"glidefs-appliance/frontends"
)

// MemDisk is a disk in memory that keeps the contract of frontends.Disk to the letter. Its memory is allocated when it
// is made.
type MemDisk struct {
	sector   int
	readOnly atomic.Bool

	mu   sync.RWMutex
	data []byte
}

// NewMem makes a MemDisk.
func NewMem(_ *testing.T, size int64, sector int) frontends.Disk { return NewMemDisk(size, sector) }

// NewMemDisk makes a disk of size bytes, a multiple of sector, all zeros.
func NewMemDisk(size int64, sector int) *MemDisk {
	if size%int64(sector) != 0 {
		panic("frontendtest: size is not a multiple of the sector size")
	}
	return &MemDisk{sector: sector, data: make([]byte, size)}
}

func (d *MemDisk) Size() int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return int64(len(d.data))
}

func (d *MemDisk) SectorSize() int { return d.sector }
func (d *MemDisk) ReadOnly() bool  { return d.readOnly.Load() }

// SetReadOnly makes every change fail with frontends.ErrReadOnly.
func (d *MemDisk) SetReadOnly() { d.readOnly.Store(true) }

// Grow makes the disk larger.
func (d *MemDisk) Grow(size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.data = append(d.data, make([]byte, size-int64(len(d.data)))...)
}

func (d *MemDisk) ReadAt(_ context.Context, p []byte, off int64) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := d.inRange(off, int64(len(p))); err != nil {
		return err
	}
	copy(p, d.data[off:])
	return nil
}

func (d *MemDisk) WriteAt(_ context.Context, p []byte, off int64, _ bool) error {
	return d.change(off, int64(len(p)), func() { copy(d.data[off:], p) })
}

func (d *MemDisk) Flush(context.Context) error { return nil }

func (d *MemDisk) Discard(_ context.Context, off, n int64) error {
	s := int64(d.sector)
	return d.change(off, n, func() {
		if first, last := (off+s-1)/s*s, (off+n)/s*s; first < last {
			clear(d.data[first:last])
		}
	})
}

func (d *MemDisk) WriteZeroes(_ context.Context, off, n int64) error {
	return d.change(off, n, func() { clear(d.data[off : off+n]) })
}

func (d *MemDisk) change(off, n int64, f func()) error {
	if d.ReadOnly() {
		return frontends.ErrReadOnly
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.inRange(off, n); err != nil {
		return err
	}
	f()
	return nil
}

func (d *MemDisk) inRange(off, n int64) error {
	if off < 0 || n < 0 || off > int64(len(d.data))-n {
		return frontends.ErrOutOfRange
	}
	return nil
}

var errInjected = errors.New("injected failure")
