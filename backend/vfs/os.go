package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// OS is the real disk of this host.
func OS() FS { return osFS{} }

type osFS struct{}

func (osFS) Create(name string) (File, error) {
	return openFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (osFS) Open(name string) (File, error) {
	return openFile(name, os.O_RDWR)
}

func (osFS) Remove(name string) error    { return noSpace(os.Remove(name)) }
func (osFS) RemoveAll(name string) error { return noSpace(os.RemoveAll(name)) }

func (osFS) Rename(oldname, newname string) error { return noSpace(os.Rename(oldname, newname)) }

// MkdirAll syncs each folder it adds to: a folder that a power cut takes away takes along every file synced in it.
func (o osFS) MkdirAll(dir string) error {
	info, err := os.Stat(dir)
	if err == nil {
		if info.IsDir() {
			return nil
		}
		return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
	}
	parent := filepath.Dir(dir)
	if parent == dir {
		return err
	}
	if err := o.MkdirAll(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return noSpace(err)
	}
	return o.SyncDir(parent)
}

func (osFS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	// A file system without fsync for folders says EINVAL; there is nothing to wait for on it.
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return noSpace(err)
	}
	return nil
}

// Lock uses flock: it goes with the process however that dies, and also excludes a second Lock in this process.
func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, noSpace(err)
	}
	err = retry(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrLocked
	}
	return nil, &fs.PathError{Op: "lock", Path: name, Err: err}
}

// Usage counts as free what an unprivileged process may use (f_bavail): root's reserve is not ours to fill.
func (osFS) Usage(dir string) (total, free int64, err error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(dir, &st) }); err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Blocks) * st.Frsize, int64(st.Bavail) * st.Frsize, nil
}

// osFile keeps the os.File, not the bare descriptor: a call that races with Close gets os.ErrClosed instead of
// reaching the file that was given the same number next.
type osFile struct {
	f      *os.File
	conn   syscall.RawConn
	cached cachedReader

	openDirect sync.Once
	direct     *os.File // nil unless DirectFd was called and could be answered
	mix        sync.Once
	mixed      atomic.Bool // MixWrites was called, and Uncache not since
}

func openFile(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, noSpace(err)
	}
	readsLeaveNoTrace(f)
	conn, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &osFile{f: f, conn: conn, cached: cachedReader{fd: f.Fd()}}, nil
}

// readsLeaveNoTrace: the first read after a write would change the inode's time, and may wait for the file system's journal.
// Only a file's owner may ask for that; for others the times change.
func readsLeaveNoTrace(f *os.File) {
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err == nil {
		_, _ = unix.FcntlInt(f.Fd(), unix.F_SETFL, flags|unix.O_NOATIME)
	}
}

func (o *osFile) ReadAt(p []byte, off int64) (int, error) {
	if o.cached.read(p, off) {
		return len(p), nil
	}
	return o.f.ReadAt(p, off)
}

func (o *osFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := o.f.WriteAt(p, off)
	return n, noSpace(err)
}

func (o *osFile) Close() error {
	o.openDirect.Do(func() {})
	o.cached.close()
	err := noSpace(o.f.Close())
	if o.direct != nil {
		err = errors.Join(err, o.direct.Close())
	}
	return err
}

func (o *osFile) Sync() error { return o.call("fdatasync", unix.Fdatasync) }

func (o *osFile) Allocate(off, n int64, keepSize bool) error {
	var mode uint32
	if keepSize {
		mode = unix.FALLOC_FL_KEEP_SIZE
	}
	return o.call("fallocate", func(fd int) error {
		if !keepSize {
			overwriteInPlace(fd)
		}
		return unix.Fallocate(fd, mode, off, n)
	})
}

// overwriteInPlace tells btrfs, before the file has data, that its blocks are to be written where they are (chattr +C).
// Else a full file system would fail writes into what was allocated, and each synced write would write its trees. Others
// have no need of it, and it is no more than that: a hint.
func overwriteInPlace(fd int) {
	const setFlags, noCOW = 0x40086602, 0x00800000 // FS_IOC_SETFLAGS, FS_NOCOW_FL
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil || st.Type != unix.BTRFS_SUPER_MAGIC {
		return
	}
	if flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS); err == nil {
		_ = unix.IoctlSetPointerInt(fd, setFlags, flags|noCOW)
	}
}

func (o *osFile) Truncate(size int64) error { return noSpace(o.f.Truncate(size)) }

func (o *osFile) Size() (int64, error) {
	info, err := o.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (o *osFile) WriteBack(off, n int64) {
	_ = o.call("sync_file_range", func(fd int) error {
		return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
	})
}

func (o *osFile) Fd() int { return int(o.f.Fd()) }

// DirectFd is a second descriptor of the file, past the page cache: for I/O in whole blocks, from memory aligned to
// them. Where the file system has no such thing it is Fd. It is opened at the first call.
func (o *osFile) DirectFd() int {
	o.openDirect.Do(func() {
		// Through /proc it is this file whatever became of its name.
		f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", o.Fd()), os.O_RDWR|unix.O_DIRECT, 0)
		if err == nil {
			readsLeaveNoTrace(f)
			o.direct = f
		}
	})
	if o.direct == nil {
		return o.Fd()
	}
	return int(o.direct.Fd())
}

// MixWrites is told before DirectFd is written to. From then on the page cache reads no more of the file than it is asked
// for, one page at a time. It would otherwise read ahead into blocks that a direct write is on its way to, in a folio with
// others: if one of those is written to through the page cache, the kernel cannot throw the folio out when the direct write
// has ended (it says "Page cache invalidation failure on direct I/O"), and who reads through it gets the old bytes. Folios
// that are there before a direct write are no such danger: it throws them out first, or itself goes through the page cache.
func (o *osFile) MixWrites() {
	o.mix.Do(func() {
		_ = o.call("fadvise", func(fd int) error { return unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM) })
	})
	if !o.mixed.Load() {
		o.mixed.Store(true)
	}
}

// Uncache drops what the page cache holds from off on, of a file that is written past it: a direct write over such pages has
// to throw them out first, for which io_uring takes another thread. [128 KiB writes through ublk on 6.17: 1.15 of before.]
// What is not on the disk yet stays, and so does all of a file with no such write since the last call: a write through the
// page cache finds its page there then, and need not get a new one. Not to be called beside MixWrites.
func (o *osFile) Uncache(off int64) {
	if o.mixed.Swap(false) {
		_ = o.call("fadvise", func(fd int) error { return unix.Fadvise(fd, off, 0, unix.FADV_DONTNEED) })
	}
}

// call runs a system call on the descriptor, which Close cannot take away meanwhile.
func (o *osFile) call(op string, fn func(fd int) error) error {
	var err error
	if cerr := o.conn.Control(func(fd uintptr) {
		err = retry(func() error { return fn(int(fd)) })
	}); cerr != nil {
		return cerr
	}
	if err != nil {
		return noSpace(&fs.PathError{Op: op, Path: o.f.Name(), Err: err})
	}
	return nil
}

// retry repeats a call that a signal interrupted: the runtime sends SIGURG to preempt goroutines.
func retry(fn func() error) error {
	for {
		if err := fn(); err != unix.EINTR {
			return err
		}
	}
}

// noSpace adds ErrNoSpace to errors that mean a full file system or a used-up quota.
func noSpace(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}
