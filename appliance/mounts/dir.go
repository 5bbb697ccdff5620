package mounts

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

var (
	// ErrNotEmpty: a mount would hide files.
	ErrNotEmpty = errors.New("directory is not empty")
	// ErrNoParent: neither the directory nor its parent is there.
	ErrNoParent = errors.New("no such directory, and its parent is missing too")
)

// MountedError: something is mounted at a directory already.
type MountedError struct{ Info }

func (e *MountedError) Error() string {
	what := e.Source
	if e.Backing != "" {
		what = e.Backing
	}
	return fmt.Sprintf("%s: %s (%s) is mounted there already", e.Dir, what, e.FSType)
}

// PrepareDir makes sure that dir can take a mount and returns its resolved path: it is an empty directory with nothing
// mounted on it. A missing one is made when its parent is there. A *MountedError says what is there, so that the caller
// can tell whether it is what was wanted.
func PrepareDir(dir string) (string, error) {
	path, err := resolve(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s: %w", dir, ErrNoParent)
	}
	if err != nil {
		return "", err
	}
	if m, ok, err := At(path); err != nil || ok {
		return path, errors.Join(err, mounted(m, ok))
	}
	if err := os.Mkdir(path, 0o755); err == nil || !errors.Is(err, fs.ErrExist) {
		return path, err
	}
	return path, empty(path)
}

func mounted(m Info, ok bool) error {
	if !ok {
		return nil
	}
	return &MountedError{m}
}

func empty(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	switch _, err = f.Readdirnames(1); {
	case err == nil:
		return fmt.Errorf("%s: %w", dir, ErrNotEmpty)
	case errors.Is(err, io.EOF):
		return nil
	}
	return err // not a directory, for one
}
