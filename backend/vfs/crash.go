package vfs

import (
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Crash is an FS in memory that records every change in one order and can tell, for each point in that order, what
// a disk might hold had the power gone there, and what the page cache holds had only the process died.
//
// What a power cut leaves, see CutAt:
//
//	file content    as of the file's last Sync, and of each 512-byte sector written since: that or any later version
//	file size       as of the last Sync, or any size it had since
//	folder entries  as of the folder's last SyncDir; each create, remove and rename since is there or not; a rename
//	                is there as a whole or not at all
//
// A RemoveAll counts as one removal for each file and folder in it. MkdirAll is durable when it returns.
//
// Paths are taken from one root, absolute or not. All methods may be called concurrently.
type Crash struct {
	mu    sync.Mutex
	start *state // before the first change; never modified
	log   []change
	now   *state // after the last change
	locks map[int]bool

	// cursor is the state after the first cursorAt changes, kept because tests walk k upwards.
	cursor   *state
	cursorAt int
}

// change is one entry of the log. Files and folders go by number, so that replaying needs no paths.
type change struct {
	op     Op
	path   string // for Log
	a, b   place  // entries: where it is, and where a rename takes it
	node   int
	folder bool // create: a folder
	lost   bool // sync: it failed
	data   []byte
	off    int64 // of data
	size   int64 // of the file, after the change
}

// place is a name in a folder.
type place struct {
	folder int
	name   string
}

// NewCrash returns an empty file system with nothing but its root folder.
func NewCrash() *Crash { return newCrash(newState(), nil, newState()) }

func newCrash(start *state, log []change, now *state) *Crash {
	return &Crash{start: start, log: log, now: now, locks: map[int]bool{}}
}

// Ops is the number of changes so far: the points for CutAt are 0 to Ops.
func (c *Crash) Ops() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.log)
}

// Log lists the changes so far, a line each, for tests that pin the order of writes, syncs and renames.
func (c *Crash) Log() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := make([]string, len(c.log))
	for i, ch := range c.log {
		lines[i] = ch.op.String() + " " + ch.path
	}
	return lines
}

// CutAt returns a new file system with what the disk might hold had the power gone right after change k, chosen by
// rng. It has an empty log and no locks. It costs a replay of the changes since the last call when k grows.
func (c *Crash) CutAt(k int, rng *rand.Rand) *Crash {
	c.mu.Lock()
	defer c.mu.Unlock()
	disk := c.seek(k).cut(rng)
	return newCrash(disk, nil, disk.fork())
}

// KillAt returns a new file system as the next process finds it when this one died right after change k: all
// changes up to k are there, the locks are free. It keeps the log, so that what was not synced can still be lost.
func (c *Crash) KillAt(k int) *Crash {
	c.mu.Lock()
	defer c.mu.Unlock()
	return newCrash(c.start, slices.Clip(c.log[:k]), c.seek(k).fork())
}

// Kill is KillAt now.
func (c *Crash) Kill() *Crash { return c.KillAt(c.Ops()) }

func (c *Crash) seek(k int) *state {
	if c.cursor == nil || k < c.cursorAt {
		c.cursor, c.cursorAt = c.start.fork(), 0
	}
	for ; c.cursorAt < k; c.cursorAt++ {
		c.cursor.apply(&c.log[c.cursorAt])
	}
	return c.cursor
}

func (c *Crash) record(ch change) {
	c.log = append(c.log, ch)
	c.now.apply(&ch)
}

func (c *Crash) Create(name string) (File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, node, err := c.now.lookup(name)
	if err == nil {
		err = fs.ErrExist
	}
	if node != missing || at.name == "" {
		return nil, pathError(OpCreate, name, err)
	}
	c.record(change{op: OpCreate, path: name, a: at, node: len(c.now.nodes)})
	return &crashFile{c, len(c.now.nodes) - 1, name}, nil
}

func (c *Crash) Open(name string) (File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, node, err := c.now.lookup(name)
	if err == nil && c.now.nodes[node].folder {
		err = syscall.EISDIR
	}
	if err != nil {
		return nil, pathError(OpOpen, name, err)
	}
	return &crashFile{c, node, name}, nil
}

func (c *Crash) Remove(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, node, err := c.now.lookup(name)
	if err == nil && len(c.now.nodes[node].now) > 0 {
		err = syscall.ENOTEMPTY
	}
	if err != nil {
		return pathError(OpRemove, name, err)
	}
	c.record(change{op: OpRemove, path: name, a: at, node: node})
	return nil
}

func (c *Crash) RemoveAll(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, node, err := c.now.lookup(name)
	if err == nil {
		c.removeTree(at, node, name)
	}
	return nil
}

func (c *Crash) removeTree(at place, node int, name string) {
	for _, child := range sortedKeys(c.now.nodes[node].now) {
		c.removeTree(place{node, child}, c.now.nodes[node].now[child], path.Join(name, child))
	}
	c.record(change{op: OpRemove, path: name, a: at, node: node})
}

func (c *Crash) Rename(oldname, newname string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	from, node, err := c.now.lookup(oldname)
	if err != nil {
		return pathError(OpRename, oldname, err)
	}
	to, target, err := c.now.lookup(newname)
	if target == missing && to.name == "" {
		return pathError(OpRename, newname, err)
	}
	if target != missing {
		old := c.now.nodes[target]
		if old.folder != c.now.nodes[node].folder || len(old.now) > 0 {
			return pathError(OpRename, newname, fs.ErrExist)
		}
	}
	c.record(change{op: OpRename, path: oldname + " " + newname, a: from, b: to, node: node})
	return nil
}

func (c *Crash) MkdirAll(dir string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	parts := split(dir)
	for i := range parts {
		sub := path.Join(parts[:i+1]...)
		at, node, err := c.now.lookup(sub)
		if node == missing {
			c.record(change{op: OpMkdirAll, path: sub, a: at, node: len(c.now.nodes), folder: true})
		} else if err != nil || !c.now.nodes[node].folder {
			return pathError(OpMkdirAll, dir, syscall.ENOTDIR)
		}
	}
	return nil
}

func (c *Crash) List(dir string) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	node, err := c.folder(dir)
	if err != nil {
		return nil, pathError(OpList, dir, err)
	}
	return sortedKeys(c.now.nodes[node].now), nil
}

func (c *Crash) SyncDir(dir string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	node, err := c.folder(dir)
	if err != nil {
		return pathError(OpSyncDir, dir, err)
	}
	c.record(change{op: OpSyncDir, path: dir, node: node})
	return nil
}

// FailSync does to a file what a failed fdatasync does: it reads as before, but what was not on the disk yet stays off it
// until it is written again, and the next Sync says nothing of it.
func (c *Crash) FailSync(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, node, err := c.now.lookup(name)
	if err != nil {
		return pathError(OpSync, name, err)
	}
	c.record(change{op: OpSync, path: name + " failed", node: node, lost: true})
	return nil
}

func (c *Crash) folder(dir string) (int, error) {
	_, node, err := c.now.lookup(dir)
	if err == nil && !c.now.nodes[node].folder {
		err = syscall.ENOTDIR
	}
	return node, err
}

func (c *Crash) Lock(name string) (io.Closer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, node, err := c.now.lookup(name)
	switch {
	case node == missing && at.name == "":
		return nil, pathError(OpLock, name, err)
	case node == missing:
		node = len(c.now.nodes)
		c.record(change{op: OpCreate, path: name, a: at, node: node})
	case c.locks[node]:
		return nil, pathError(OpLock, name, ErrLocked)
	}
	c.locks[node] = true
	return &crashLock{c: c, node: node}, nil
}

type crashLock struct {
	c    *Crash
	node int
	once sync.Once
}

func (l *crashLock) Close() error {
	l.once.Do(func() {
		l.c.mu.Lock()
		defer l.c.mu.Unlock()
		delete(l.c.locks, l.node)
	})
	return nil
}

// crashSize is what Usage reports as the size of the file system.
const crashSize = 1 << 40

// Usage counts the sizes of all files, the removed ones too.
func (c *Crash) Usage(dir string) (total, free int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.folder(dir); err != nil {
		return 0, 0, pathError(OpUsage, dir, err)
	}
	free = crashSize
	for i := range c.now.nodes {
		free -= c.now.nodes[i].live.size
	}
	return crashSize, free, nil
}

func pathError(op Op, name string, err error) error {
	return &fs.PathError{Op: op.String(), Path: name, Err: err}
}

func split(name string) []string {
	return strings.FieldsFunc(path.Clean("/"+name), func(r rune) bool { return r == '/' })
}
