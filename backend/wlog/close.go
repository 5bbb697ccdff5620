package wlog

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// Kill ends the log at once: all that waits and all later calls get err. The files stay as they are. It does not
// block; Close afterwards gives back descriptors and memory.
func (l *Log) Kill(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failLocked(err)
}

// Close flushes, says in the head that the log ended in order, and closes the files; a segment with readers or spans
// closes with the last of them. When the store holds everything the segments are deleted. It returns the error that stopped
// the log, if any; then the head stays as it was.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	err := l.err
	if err == nil && l.started {
		err = l.flush(l.tip.Seq)
		l.mu.Lock()
	}
	l.closed = true
	l.mu.Unlock()
	l.wg.Wait()
	if err == nil && l.started {
		err = l.finish()
	}
	l.Kill(ErrClosed)
	left := l.closeFiles()
	l.o.Budget.unregister(l, left)
	return err
}

// finish writes the last head and deletes what the store holds.
func (l *Log) finish() error {
	l.mu.Lock()
	mark, settled := l.durable.Load(), l.head.base == l.tip
	l.mu.Unlock()
	err := l.writeHead(mark, true)
	if settled && errors.Is(err, fs.ErrNotExist) {
		return nil // somebody has deleted the folder, and the store has all that was in it
	}
	if err != nil {
		return err
	}
	if !settled {
		return nil
	}
	return l.removeSegments()
}

func (l *Log) removeSegments() error {
	names, err := l.o.FS.List(l.o.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".seg") {
			continue
		}
		if err := l.o.FS.Remove(filepath.Join(l.o.Dir, name)); err != nil {
			return fmt.Errorf("write log: %w", err)
		}
	}
	l.mu.Lock()
	l.bytes = 0
	l.mu.Unlock()
	return nil
}

// closeFiles closes every file and returns what the segments still on the disk take.
func (l *Log) closeFiles() int64 {
	l.mu.Lock()
	l.closed = true
	segs := slices.Concat(l.sealed, l.moving, l.ready, l.openLocked())
	segs = slices.DeleteFunc(segs, func(s *Segment) bool { return s.held > 0 }) // see movedLocked
	free, left := l.free, l.bytes
	l.sealed, l.moving, l.ready, l.free, l.cur, l.side = nil, nil, nil, nil, nil, nil
	l.mu.Unlock()
	for _, s := range segs {
		s.Release()
	}
	for _, f := range free {
		_ = f.file.Close()
	}
	return left
}

// Remove deletes the log, and closes it first if need be. The head goes last, so that a crash in between leaves a log
// that opens, if everything in it was settled.
func (l *Log) Remove() error {
	_ = l.Close() // nothing that it could fail at is needed any more
	if err := l.removeSegments(); err != nil {
		return err
	}
	if err := l.o.FS.SyncDir(l.o.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write log: %w", err)
	}
	if err := l.o.FS.RemoveAll(l.o.Dir); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	l.o.Budget.forget(l.o.Dir)
	if err := l.o.FS.SyncDir(filepath.Dir(l.o.Dir)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
