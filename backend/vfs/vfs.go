// Package vfs is the engine's local disk: the one seam between the write log, the clean cache and the
// operating system. Nothing else in backend/ calls package os.
//
// Three implementations: OS (the real one), Crash (records every write, sync, rename and dir sync in memory and
// replays a power cut at any of them) and Fault (decorates another FS with injected errors and delays). All pass the
// same contract test.
package vfs

import (
	"errors"
	"io"
)

var (
	// ErrLocked: another process (or another Lock in this one) holds the lock file.
	ErrLocked = errors.New("locked by another process")
	// ErrNoSpace wraps ENOSPC and EDQUOT: the file system is full; the caller waits rather than fails.
	ErrNoSpace = errors.New("no space left on the file system")
)

// FS names files by path. All methods may block on the disk. Errors wrap the operation and the path and keep
// fs.ErrNotExist, fs.ErrExist, fs.ErrPermission, ErrNoSpace and syscall.EROFS recognisable by errors.Is.
type FS interface {
	// Create makes a new file (0600) for reading and writing; fs.ErrExist if it is there. Durable only after
	// SyncDir of its folder.
	Create(name string) (File, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	Remove(name string) error
	// RemoveAll removes a folder and what is in it.
	RemoveAll(name string) error
	// Rename replaces what is at newname, atomically. Durable only after SyncDir.
	Rename(oldname, newname string) error
	// MkdirAll makes a folder and its parents (0700), durably.
	MkdirAll(dir string) error
	// List returns the base names in dir, sorted.
	List(dir string) ([]string, error)
	// SyncDir makes creations, removals and renames in dir durable.
	SyncDir(dir string) error
	// Lock takes an exclusive advisory lock on name (created if missing), without waiting: ErrLocked.
	Lock(name string) (io.Closer, error)
	// Usage tells the size of the file system that holds dir and what is free for us, in bytes.
	Usage(dir string) (total, free int64, err error)
}

// File is an open file. ReadAt and WriteAt follow io.ReaderAt / io.WriterAt and may be called concurrently; a WriteAt
// is full or an error.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes data and size durable (fdatasync). After one failure the caller must treat the file as lost:
	// the kernel forgets what it could not write.
	Sync() error
	// Allocate reserves blocks for [off, off+n) without changing the size when keepSize is set; if it is not, and the file
	// is empty, btrfs will write in place what goes there. On ext4 it also waits for direct I/O in flight, also that of a
	// killed process, which fdatasync does not. errors.ErrUnsupported where the file system has no such call.
	Allocate(off, n int64, keepSize bool) error
	Truncate(size int64) error
	Size() (int64, error)
	// WriteBack starts writing dirty pages of the range to the disk and does not wait (sync_file_range). A hint.
	WriteBack(off, n int64)
	// Fd is the descriptor for splice and io_uring, or -1 where there is none.
	Fd() int
}
