package frontendtest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"unsafe"

	"glidefs-appliance/frontends"

	"golang.org/x/sys/unix"
)

// handle is the guest's side: a file or a block device, open.
type handle struct {
	*os.File
	block  bool
	sector int64 // what discards and direct I/O must be aligned to; 1 on files
}

func open(t *testing.T, path string, flags int) *handle {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	h, err := newHandle(f)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func newHandle(f *os.File) (*handle, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	h := &handle{File: f, block: st.Mode()&os.ModeDevice != 0, sector: 1}
	if h.block {
		s, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET)
		if err != nil {
			return nil, err
		}
		h.sector = int64(s)
	}
	return h, nil
}

func (h *handle) size() (int64, error) { return h.Seek(0, 2) }

// discard makes a hole: BLKDISCARD on devices, fallocate on files.
func (h *handle) discard(off, n int64) error {
	if h.block {
		return h.rangeIoctl(unix.BLKDISCARD, off, n)
	}
	return h.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (h *handle) zero(off, n int64) error {
	if h.block {
		return h.rangeIoctl(unix.BLKZEROOUT, off, n)
	}
	return h.fallocate(unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (h *handle) fallocate(mode uint32, off, n int64) error {
	for {
		if err := unix.Fallocate(int(h.Fd()), mode, off, n); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (h *handle) rangeIoctl(req uintptr, off, n int64) error {
	r := [2]uint64{uint64(off), uint64(n)}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, h.Fd(), req, uintptr(unsafe.Pointer(&r))); e != 0 {
		return e
	}
	return nil
}

// align widens [off, off+n) to what discard and zero take here.
func (h *handle) align(off, n int64) (int64, int64) {
	end := (off + n + h.sector - 1) / h.sector * h.sector
	off = off / h.sector * h.sector
	return off, end - off
}

// alignedBuf returns n bytes at a page boundary, for O_DIRECT.
func alignedBuf(n int) []byte {
	const page = 4096
	b := make([]byte, n+page)
	skip := (page - int(uintptr(unsafe.Pointer(&b[0]))%page)) % page
	return b[skip : skip+n : skip+n]
}

// bed is one disk being served and what it must hold.
type bed struct {
	t     *testing.T
	spy   *Spy
	path  string
	model []byte
}

func newBed(t *testing.T, s suite, size int64) *bed {
	t.Helper()
	spy := Watch(s.disk(t, size, s.sector))
	return &bed{t: t, spy: spy, path: s.serve(t, spy), model: make([]byte, size)}
}

// check compares the disk itself and what the guest reads with the model.
func (b *bed) check(h *handle) {
	b.t.Helper()
	if err := h.Sync(); err != nil {
		b.t.Fatal(err)
	}
	got := alignedBuf(len(b.model))
	if err := b.spy.Disk.ReadAt(context.Background(), got, 0); err != nil {
		b.t.Fatal(err)
	}
	b.equal("disk", got)
	clear(got)
	if _, err := h.ReadAt(got, 0); err != nil {
		b.t.Fatal(err)
	}
	b.equal("guest", got)
}

func (b *bed) equal(who string, got []byte) {
	b.t.Helper()
	if bytes.Equal(got, b.model) {
		return
	}
	for i := range got {
		if got[i] != b.model[i] {
			b.t.Fatalf("%s: byte %d is %#x, want %#x", who, i, got[i], b.model[i])
		}
	}
}

var _ frontends.Mapper = (*Spy)(nil)
