// Package logfile writes a log file that is rotated by size: NAME, then NAME.1 (newer) to NAME.3 (oldest).
package logfile

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	maxSize = 8 << 20 // bytes of one file
	keep    = 3       // old files
)

// File is an io.Writer; each Write is one log line or several, never split over two files. Safe for concurrent use.
type File struct {
	path  string
	stdio bool

	mu   sync.Mutex
	f    *os.File
	size int64
}

// Open appends to the file at path (0600). With stdio set, standard output and error go to it too, also after each
// rotation: a crash of the Go runtime is written there.
func Open(path string, stdio bool) (*File, error) {
	l := &File{path: path, stdio: stdio}
	if err := l.openLocked(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *File) openLocked() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("log: %w", err)
	}
	if l.stdio {
		for _, std := range []*os.File{os.Stdout, os.Stderr} {
			if err := unix.Dup3(int(f.Fd()), int(std.Fd()), 0); err != nil {
				f.Close()
				return fmt.Errorf("log: redirect %s: %w", std.Name(), err)
			}
		}
	}
	if l.f != nil {
		l.f.Close()
	}
	l.f, l.size = f, info.Size()
	return nil
}

// Write appends p. A file system that is full loses log lines and nothing else.
func (l *File) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > 0 && l.size+int64(len(p)) > maxSize {
		l.rotateLocked()
	}
	n, err := l.f.Write(p)
	l.size += int64(n)
	return n, err
}

// rotateLocked renames the files and goes on in a new one. When that fails it goes on in the one it has.
func (l *File) rotateLocked() {
	for i := keep; i > 1; i-- {
		_ = os.Rename(l.old(i-1), l.old(i)) // not there yet, or the next rename says why
	}
	if err := os.Rename(l.path, l.old(1)); err != nil {
		return
	}
	_ = l.openLocked()
}

// Reopen goes on in the file that has the name now, made if there is none; when that fails, in the one it has.
func (l *File) Reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.openLocked()
}

func (l *File) old(i int) string { return fmt.Sprintf("%s.%d", l.path, i) }

// Close closes the file.
func (l *File) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Close()
}
