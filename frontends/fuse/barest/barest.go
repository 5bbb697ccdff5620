// Package barest is the yardstick of the FUSE benchmarks: the least that go-fuse can do. It serves one file whose every
// request is one pread or one pwrite of one local file. Only benchmarks and tests import it.
package barest

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	node     = fuse.FUSE_ROOT_ID + 1
	fileName = "file"
)

// Server is the mount.
type Server struct{ raw *fuse.Server }

// Mount serves f at dir and returns the path of the served file. The mount options and open flags are those of
// frontends/fuse, except that splicing is off: it would make every read dearer.
func Mount(dir string, f *os.File) (*Server, string, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, "", err
	}
	raw, err := fuse.NewServer(&file{RawFileSystem: fuse.NewDefaultRawFileSystem(), fd: int(f.Fd()), size: st.Size()}, dir, &fuse.MountOptions{
		Name:              "barest",
		DirectMount:       true,
		MaxWrite:          1 << 20,
		MaxBackground:     256,
		DisableXAttrs:     true,
		DisableSplice:     true,
		ExtraCapabilities: fuse.CAP_ASYNC_DIO | fuse.CAP_DIRECT_IO_ALLOW_MMAP,
	})
	if err != nil {
		return nil, "", fmt.Errorf("mount %s: %w", dir, err)
	}
	go raw.Serve()
	return &Server{raw}, filepath.Join(dir, fileName), raw.WaitMount()
}

// Unmount fails while the file is open.
func (s *Server) Unmount() error { return s.raw.Unmount() }

type file struct {
	fuse.RawFileSystem
	fd   int
	size int64
}

func (f *file) attr(id uint64) fuse.Attr {
	a := fuse.Attr{Ino: id, Mode: syscall.S_IFDIR | 0o755, Nlink: 1, Blksize: 4096}
	if id == node {
		a.Mode, a.Size = syscall.S_IFREG|0o600, uint64(f.size)
	}
	return a
}

func (f *file) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if name != fileName {
		return fuse.ENOENT
	}
	*out = fuse.EntryOut{NodeId: node, EntryValid: 3600, AttrValid: 3600, Attr: f.attr(node)}
	return fuse.OK
}

func (f *file) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	*out = fuse.AttrOut{AttrValid: 3600, Attr: f.attr(in.NodeId)}
	return fuse.OK
}

func (f *file) Open(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES | fuse.FOPEN_NOFLUSH
	return fuse.OK
}

func (f *file) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, err := unix.Pread(f.fd, buf, int64(in.Offset))
	if err != nil {
		return nil, fuse.ToStatus(err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (f *file) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n, err := unix.Pwrite(f.fd, data, int64(in.Offset))
	return uint32(n), fuse.ToStatus(err)
}

func (f *file) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status {
	return fuse.ToStatus(unix.Fdatasync(f.fd))
}
