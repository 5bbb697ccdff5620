package vfs

import (
	"io"
	"sync/atomic"
)

// Fault decorates an FS with injected errors and delays and counts what is asked of it. Files opened through it
// go through its hooks too, except what is done to their Fd directly.
type Fault struct {
	fs     FS
	before atomic.Pointer[Hook]
	after  atomic.Pointer[Hook]
	usage  atomic.Pointer[[2]int64]
	counts [numOps]atomic.Int64
}

// Hook is called with the operation and the path it is for (a rename: the old one). It may block, and is called
// concurrently.
type Hook func(op Op, name string) error

// NewFault returns a decorator that injects nothing yet.
func NewFault(fs FS) *Fault { return &Fault{fs: fs} }

// Before sets the hook called before each operation; its error is returned instead of doing the operation. Nil
// takes the hook away. WriteBack has no error to give back: with an error from the hook it is left out.
func (f *Fault) Before(h Hook) { f.before.Store(&h) }

// After sets the hook called after each operation that succeeded; its error is returned although the operation
// was done.
func (f *Fault) After(h Hook) { f.after.Store(&h) }

// SetUsage makes Usage report these figures; a negative total goes back to the real ones.
func (f *Fault) SetUsage(total, free int64) {
	if total < 0 {
		f.usage.Store(nil)
		return
	}
	f.usage.Store(&[2]int64{total, free})
}

// Count tells how often an operation was asked for, failed or not.
func (f *Fault) Count(op Op) int64 { return f.counts[op].Load() }

func (f *Fault) do(op Op, name string, fn func() error) error {
	f.counts[op].Add(1)
	if err := call(&f.before, op, name); err != nil {
		return err
	}
	if err := fn(); err != nil {
		return err
	}
	return call(&f.after, op, name)
}

func call(hook *atomic.Pointer[Hook], op Op, name string) error {
	h := hook.Load()
	if h == nil || *h == nil {
		return nil
	}
	return (*h)(op, name)
}

func (f *Fault) Create(name string) (File, error) { return f.open(OpCreate, name, f.fs.Create) }
func (f *Fault) Open(name string) (File, error)   { return f.open(OpOpen, name, f.fs.Open) }

func (f *Fault) open(op Op, name string, open func(string) (File, error)) (File, error) {
	var file File
	err := f.do(op, name, func() (err error) {
		file, err = open(name)
		return err
	})
	if err == nil {
		return &faultFile{file, f, name}, nil
	}
	if file != nil {
		file.Close()
	}
	return nil, err
}

func (f *Fault) Remove(name string) error {
	return f.do(OpRemove, name, func() error { return f.fs.Remove(name) })
}

func (f *Fault) RemoveAll(name string) error {
	return f.do(OpRemoveAll, name, func() error { return f.fs.RemoveAll(name) })
}

func (f *Fault) Rename(oldname, newname string) error {
	return f.do(OpRename, oldname, func() error { return f.fs.Rename(oldname, newname) })
}

func (f *Fault) MkdirAll(dir string) error {
	return f.do(OpMkdirAll, dir, func() error { return f.fs.MkdirAll(dir) })
}

func (f *Fault) List(dir string) (names []string, err error) {
	err = f.do(OpList, dir, func() (err error) {
		names, err = f.fs.List(dir)
		return err
	})
	return names, err
}

func (f *Fault) SyncDir(dir string) error {
	return f.do(OpSyncDir, dir, func() error { return f.fs.SyncDir(dir) })
}

func (f *Fault) Lock(name string) (io.Closer, error) {
	var lock io.Closer
	err := f.do(OpLock, name, func() (err error) {
		lock, err = f.fs.Lock(name)
		return err
	})
	if err != nil && lock != nil {
		lock.Close()
		lock = nil
	}
	return lock, err
}

func (f *Fault) Usage(dir string) (total, free int64, err error) {
	err = f.do(OpUsage, dir, func() (err error) {
		if u := f.usage.Load(); u != nil {
			total, free = u[0], u[1]
			return nil
		}
		total, free, err = f.fs.Usage(dir)
		return err
	})
	return total, free, err
}

type faultFile struct {
	File
	fault *Fault
	name  string
}

func (f *faultFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.fault.do(OpRead, f.name, func() (err error) {
		n, err = f.File.ReadAt(p, off)
		return err
	})
	return n, err
}

func (f *faultFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.fault.do(OpWrite, f.name, func() (err error) {
		n, err = f.File.WriteAt(p, off)
		return err
	})
	return n, err
}

func (f *faultFile) Sync() error { return f.fault.do(OpSync, f.name, f.File.Sync) }

func (f *faultFile) Allocate(off, n int64, keepSize bool) error {
	return f.fault.do(OpAllocate, f.name, func() error { return f.File.Allocate(off, n, keepSize) })
}

func (f *faultFile) Truncate(size int64) error {
	return f.fault.do(OpTruncate, f.name, func() error { return f.File.Truncate(size) })
}

func (f *faultFile) Size() (size int64, err error) {
	err = f.fault.do(OpSize, f.name, func() (err error) {
		size, err = f.File.Size()
		return err
	})
	return size, err
}

func (f *faultFile) WriteBack(off, n int64) {
	_ = f.fault.do(OpWriteBack, f.name, func() error {
		f.File.WriteBack(off, n)
		return nil
	})
}
