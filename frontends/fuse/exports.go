package fuse

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"glidefs-appliance/frontends"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// firstNode is the node id of table[0]; 1 is the root.
const firstNode = fuse.FUSE_ROOT_ID + 1

// export is one file. A node id belongs to one export for the life of the mount.
type export struct {
	name     string
	node     uint64
	added    time.Time
	disk     frontends.Disk
	mapper   frontends.Mapper // nil if the disk has none
	readOnly bool
	size     atomic.Int64
	sizes    frontends.Sizes // of requests

	gate   gate          // requests in flight
	quit   chan struct{} // closed by Evict: requests that wait give up
	fenced atomic.Bool   // a handler panicked

	// Guarded by Server.mu.
	opens   int
	lookups uint64        // references of the kernel to the node
	removed bool          // no new opens; the name is free
	idle    chan struct{} // closed when opens falls to zero; nil while nobody waits
}

// Add makes d a file and returns its path. d must stay usable until Remove or Evict returned. readOnly makes the file
// read-only whatever the disk says.
func (s *Server) Add(name string, d frontends.Disk, readOnly bool) (path string, err error) {
	if !validName(name) {
		return "", fmt.Errorf("add %q to %s: not a file name", name, s.dir)
	}
	e := &export{name: name, added: time.Now(), disk: d, readOnly: readOnly || d.ReadOnly(), quit: make(chan struct{})}
	e.mapper, _ = d.(frontends.Mapper)
	e.size.Store(d.Size())
	e.gate.init()

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.byName[name] != nil {
		return "", fmt.Errorf("add %q to %s: %w", name, s.dir, ErrExists)
	}
	s.mu.byName[name] = e
	s.publishLocked(e)
	return filepath.Join(s.dir, name), nil
}

func validName(name string) bool {
	return name != "" && len(name) <= 255 && name[0] != '.' && !strings.ContainsAny(name, "/\x00")
}

// publishLocked gives e the next node id.
func (s *Server) publishLocked(e *export) {
	old := *s.table.Load()
	e.node = firstNode + uint64(len(old))
	next := append(slices.Clip(old), e)
	s.table.Store(&next)
}

// export finds a node, nil if it is not or no longer a file of ours.
func (s *Server) export(node uint64) *export {
	t := *s.table.Load()
	if i := node - firstNode; i < uint64(len(t)) {
		return t[i]
	}
	return nil
}

func (s *Server) named(name string) (*export, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.mu.byName[name]; e != nil {
		return e, nil
	}
	return nil, fmt.Errorf("%s: %q: %w", s.dir, name, ErrNotFound)
}

// Names lists the files, sorted.
func (s *Server) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.mu.byName))
	for n := range s.mu.byName {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Sizes of the requests to each file, by name.
func (s *Server) Sizes() map[string]frontends.SizeCounts {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]frontends.SizeCounts, len(s.mu.byName))
	for name, e := range s.mu.byName {
		var sum frontends.SizeCounts
		sum.Add(&e.sizes)
		all[name] = sum
	}
	return all
}

// OpenCount tells how often the file is open, 0 if there is none. The kernel reports a close a moment after it.
func (s *Server) OpenCount(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.mu.byName[name]; e != nil {
		return e.opens
	}
	return 0
}

// Resize makes the size of a grown disk visible at once.
func (s *Server) Resize(name string) error {
	e, err := s.named(name)
	if err != nil {
		return err
	}
	e.size.Store(e.disk.Size())
	const attributesOnly = -1
	if st := s.raw.InodeNotify(e.node, attributesOnly, 0); st != fuse.OK && st != fuse.ENOENT {
		return fmt.Errorf("resize %s: invalidate attributes: %w", filepath.Join(s.dir, name), syscall.Errno(st))
	}
	return nil
}

// Remove takes the file away when nobody has it open. It waits for that until ctx ends (the kernel reports closes late,
// and a loop device lets go some time after its detach), then gives ErrBusy and leaves all as it was.
func (s *Server) Remove(ctx context.Context, name string) error {
	for {
		e, idle, err := s.tryRemove(name)
		if err != nil {
			return err
		}
		if idle == nil {
			return s.retire(ctx, e)
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return fmt.Errorf("remove %s: %w", filepath.Join(s.dir, name), ErrBusy)
		}
	}
}

// tryRemove takes the name away and returns a nil channel, or returns the channel that tells when to try again.
func (s *Server) tryRemove(name string) (*export, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.mu.byName[name]
	if e == nil {
		return nil, nil, fmt.Errorf("remove %s: %w", filepath.Join(s.dir, name), ErrNotFound)
	}
	if e.opens == 0 {
		s.unnameLocked(e)
		return e, nil, nil
	}
	if e.idle == nil {
		e.idle = make(chan struct{})
	}
	return e, e.idle, nil
}

// Evict takes the file away even when it is open: requests that wait end with EIO, the others are waited for (until ctx
// ends), and every later operation on an open handle is EIO. The disk is not used any more once it returned nil.
func (s *Server) Evict(ctx context.Context, name string) error {
	s.mu.Lock()
	e := s.mu.byName[name]
	if e == nil {
		s.mu.Unlock()
		return fmt.Errorf("evict %s: %w", filepath.Join(s.dir, name), ErrNotFound)
	}
	s.unnameLocked(e)
	s.mu.Unlock()
	return s.retire(ctx, e)
}

// closedLocked: nobody has the file open any more.
func (e *export) closedLocked() {
	e.opens = 0
	if e.idle != nil {
		close(e.idle)
		e.idle = nil
	}
}

func (s *Server) unnameLocked(e *export) {
	delete(s.mu.byName, e.name)
	e.removed = true
	s.dropLocked(e)
}

// dropLocked forgets the node once neither we nor the kernel have a use for it.
func (s *Server) dropLocked(e *export) {
	if !e.removed || e.lookups > 0 || e.opens > 0 {
		return
	}
	next := slices.Clone(*s.table.Load())
	next[e.node-firstNode] = nil
	s.table.Store(&next)
}

// retire ends the requests of an export that has lost its name.
func (s *Server) retire(ctx context.Context, e *export) error {
	close(e.quit)
	s.raw.EntryNotify(fuse.FUSE_ROOT_ID, e.name)
	select {
	case <-e.gate.close():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: requests still in flight: %w", filepath.Join(s.dir, e.name), ctx.Err())
	}
}
