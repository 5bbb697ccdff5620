package fuse

import (
	"math"
	"os"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// forever is how long the kernel may keep names and attributes: we tell it when they change.
	forever = 24 * time.Hour
	// blockSize of statfs; a loop device takes it for its discard granularity.
	blockSize = 4096
)

// rawFS is the server as go-fuse calls it; what is not here is ENOSYS. With ENOSYS for LSEEK the kernel takes the whole
// file for data, which is what we want.
type rawFS struct {
	fuse.RawFileSystem
	s *Server
}

func (f *rawFS) String() string { return fsName }

func (f *rawFS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if h.NodeId != fuse.FUSE_ROOT_ID {
		return fuse.ENOTDIR
	}
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	e := f.s.mu.byName[name]
	if e == nil {
		return fuse.ENOENT
	}
	e.lookups++
	out.NodeId = e.node
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
	e.attr(&out.Attr)
	return fuse.OK
}

func (f *rawFS) Forget(node, n uint64) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if e := f.s.export(node); e != nil {
		e.lookups -= n
		f.s.dropLocked(e)
	}
}

func (f *rawFS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.SetTimeout(forever)
	if in.NodeId == fuse.FUSE_ROOT_ID {
		out.Attr = fuse.Attr{Ino: fuse.FUSE_ROOT_ID, Mode: syscall.S_IFDIR | 0o700, Nlink: 2, Owner: owner, Blksize: blockSize}
		return fuse.OK
	}
	e := f.s.export(in.NodeId)
	if e == nil {
		return fuse.ENOENT
	}
	e.attr(&out.Attr)
	return fuse.OK
}

var owner = fuse.Owner{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}

func (e *export) attr(out *fuse.Attr) {
	size := uint64(e.size.Load())
	*out = fuse.Attr{Ino: e.node, Size: size, Blocks: size / 512, Mode: syscall.S_IFREG | e.mode(), Nlink: 1, Owner: owner, Blksize: blockSize}
	out.SetTimes(&e.added, &e.added, &e.added)
}

func (e *export) mode() uint32 {
	if e.readOnly {
		return 0o400
	}
	return 0o600
}

// SetAttr accepts what changes nothing that counts. O_TRUNC arrives here as size 0.
func (f *rawFS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	e := f.s.export(in.NodeId)
	if e == nil || in.Valid&(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		return fuse.EPERM
	}
	if size, ok := in.GetSize(); ok && int64(size) != e.size.Load() {
		return fuse.EPERM
	}
	out.SetTimeout(forever)
	e.attr(&out.Attr)
	return fuse.OK
}

func (f *rawFS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	e := f.s.export(in.NodeId)
	switch {
	case e == nil || e.removed:
		return fuse.ENOENT
	case e.readOnly && in.Flags&unix.O_ACCMODE != unix.O_RDONLY:
		return fuse.EROFS
	}
	e.opens++
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES | fuse.FOPEN_NOFLUSH
	return fuse.OK
}

func (f *rawFS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	e := f.s.export(in.NodeId)
	if e.opens--; e.opens > 0 {
		return
	}
	e.closedLocked()
	f.s.dropLocked(e)
}

func (f *rawFS) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.OK }

// ReadDir lists the exports in the order of their nodes, so that a listing stays whole while others come and go.
func (f *rawFS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	for i, e := range (*f.s.table.Load())[min(in.Offset, uint64(len(*f.s.table.Load()))):] {
		if e == nil || e.removed {
			continue
		}
		next := in.Offset + uint64(i) + 1
		if !out.AddDirEntry(fuse.DirEntry{Mode: syscall.S_IFREG, Name: e.name, Ino: e.node, Off: next}) {
			break
		}
	}
	return fuse.OK
}

func (f *rawFS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var size int64
	var files uint64
	for _, e := range *f.s.table.Load() {
		if e != nil {
			size += e.size.Load()
			files++
		}
	}
	*out = fuse.StatfsOut{Blocks: uint64(size / blockSize), Files: files, Bsize: blockSize, Frsize: blockSize, NameLen: math.MaxUint8}
	return fuse.OK
}
