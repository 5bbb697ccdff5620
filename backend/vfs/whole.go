package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
)

// newSuffix marks the file that WriteFile fills before it takes its final name. One that a crash left behind is
// overwritten by the next WriteFile of the same name.
const newSuffix = ".new"

// WriteFile replaces the whole content of a file, durably: after a power cut at any point name holds either the
// old content or the new. It must not run twice at once for one name. On an error the old content is still there,
// or, where only the last sync failed, either of the two.
func WriteFile(fsys FS, name string, data []byte) error {
	if err := writeNew(fsys, name+newSuffix, data); err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if err := fsys.Rename(name+newSuffix, name); err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if err := fsys.SyncDir(filepath.Dir(name)); err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	return nil
}

func writeNew(fsys FS, name string, data []byte) error {
	f, err := fsys.Create(name)
	if errors.Is(err, fs.ErrExist) {
		if err := fsys.Remove(name); err != nil {
			return err
		}
		f, err = fsys.Create(name)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = fsys.Remove(name)
	}
	return err
}

// ReadFile returns the whole content of a file.
func ReadFile(fsys FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	data := make([]byte, size)
	if n, err := f.ReadAt(data, 0); int64(n) < size && err != nil && err != io.EOF {
		return nil, err
	} else {
		return data[:n], nil
	}
}
