package vfs

import (
	"fmt"
	"io"
	"syscall"
)

// sector is what a disk writes as a whole.
const sector = 512

type crashFile struct {
	c    *Crash
	node int
	name string
}

func (f *crashFile) image() *image { return &f.c.now.nodes[f.node].live }

func (f *crashFile) ReadAt(p []byte, off int64) (int, error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if off < 0 {
		return 0, pathError(OpRead, f.name, syscall.EINVAL)
	}
	n := f.image().read(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt records whole sectors, as the page cache hands them to the disk: a sector that survives a cut holds all
// that was written to it before, too.
func (f *crashFile) WriteAt(p []byte, off int64) (int, error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if off < 0 {
		return 0, pathError(OpWrite, f.name, syscall.EINVAL)
	}
	if len(p) == 0 {
		return 0, nil
	}
	end := off + int64(len(p))
	first := off / sector * sector
	data := make([]byte, (end+sector-1)/sector*sector-first)
	if off%sector != 0 || end%sector != 0 {
		f.image().read(data, first)
	}
	copy(data[off-first:], p)
	f.c.record(change{op: OpWrite, path: fmt.Sprintf("%s %d+%d", f.name, off, len(p)), node: f.node,
		data: data, off: first, size: max(f.image().size, end)})
	return len(p), nil
}

func (f *crashFile) Close() error { return nil }

func (f *crashFile) Sync() error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	f.c.record(change{op: OpSync, path: f.name, node: f.node})
	return nil
}

func (f *crashFile) Allocate(off, n int64, keepSize bool) error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if off < 0 || n <= 0 {
		return pathError(OpAllocate, f.name, syscall.EINVAL)
	}
	size := f.image().size
	if !keepSize {
		size = max(size, off+n)
	}
	f.c.record(change{op: OpAllocate, path: fmt.Sprintf("%s %d+%d", f.name, off, n), node: f.node, size: size})
	return nil
}

func (f *crashFile) Truncate(size int64) error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if size < 0 {
		return pathError(OpTruncate, f.name, syscall.EINVAL)
	}
	f.c.record(change{op: OpTruncate, path: fmt.Sprintf("%s %d", f.name, size), node: f.node, size: size})
	return nil
}

func (f *crashFile) Size() (int64, error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	return f.image().size, nil
}

func (f *crashFile) WriteBack(off, n int64) {}

func (f *crashFile) Fd() int { return -1 }
