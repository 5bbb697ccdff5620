package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"glidefs-appliance/backend/store"
)

func (s *Store) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	in, err := s.put(ctx, key, body, c)
	if err != nil {
		return store.Info{}, fmt.Errorf("dir: put %s: %w", key, err)
	}
	return in, nil
}

func (s *Store) put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	if err := s.begin(ctx, key); err != nil {
		return store.Info{}, err
	}
	if err := s.prepare(); err != nil {
		return store.Info{}, err
	}
	tmp, in, err := s.writeTemp(ctx, key, body)
	if err != nil {
		return store.Info{}, s.explain(err)
	}
	defer os.Remove(tmp) // gone already after a rename; what a crash leaves is removed by removeStaleTemps
	if err := ctx.Err(); err != nil {
		return store.Info{}, err // the caller may have gone on, and used the memory of body for something else
	}
	path := s.path(key)
	if err := s.makeFolder(filepath.Dir(path)); err != nil {
		return store.Info{}, err
	}
	if err := s.publish(ctx, tmp, path, c); err != nil {
		return store.Info{}, err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		// Visible, perhaps not durable.
		return store.Info{}, fmt.Errorf("%w: %w", store.ErrAmbiguous, err)
	}
	return in, nil
}

// makeFolder makes the folder of an object. What is known about folders is checked once more here, because somebody may
// have removed one.
func (s *Store) makeFolder(dir string) error {
	if s.settled.has(dir) {
		if _, err := os.Stat(dir); err == nil {
			return nil
		}
		s.forget()
	}
	if err := s.ensure(dir); err != nil {
		return s.explain(err)
	}
	return nil
}

// writeTemp writes body to a new file in the side folder and makes it durable.
func (s *Store) writeTemp(ctx context.Context, key string, body []byte) (string, store.Info, error) {
	f, err := os.CreateTemp(filepath.Join(s.root, tmpDir), "put-")
	if errors.Is(err, fs.ErrNotExist) {
		s.forget()
		if err = s.prepare(); err == nil {
			f, err = os.CreateTemp(filepath.Join(s.root, tmpDir), "put-")
		}
	}
	if err != nil {
		return "", store.Info{}, err
	}
	defer f.Close()
	in, err := fill(ctx, f, key, body)
	if err != nil {
		os.Remove(f.Name())
		return "", store.Info{}, err
	}
	return f.Name(), in, nil
}

func fill(ctx context.Context, f *os.File, key string, body []byte) (store.Info, error) {
	err := store.InPieces(ctx, body, func(p []byte) error {
		_, err := f.Write(p)
		return err
	})
	if err != nil {
		return store.Info{}, err
	}
	etag, err := setVersion(f, body)
	if err != nil {
		return store.Info{}, err
	}
	if err := syscall.Fdatasync(int(f.Fd())); err != nil {
		return store.Info{}, &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	fi, err := f.Stat()
	if err != nil {
		return store.Info{}, err
	}
	return infoOf(key, fi, etag), nil
}

// publish gives tmp its name if c holds. Nothing has happened when it fails.
func (s *Store) publish(ctx context.Context, tmp, path string, c store.Condition) error {
	if c.IfAbsent {
		err := os.Link(tmp, path)
		if errors.Is(err, fs.ErrExist) {
			return existing(path)
		}
		if err != nil {
			return s.explain(err)
		}
		return nil
	}
	if err := s.lock.acquire(ctx); err != nil {
		return err
	}
	defer s.lock.release()
	if c.IfMatch != "" {
		if err := s.match(path, c.IfMatch); err != nil {
			return err
		}
	}
	if err := os.Rename(tmp, path); err != nil {
		return s.explain(err)
	}
	return nil
}

func existing(path string) error {
	if fi, err := os.Stat(path); err == nil && fi.IsDir() {
		return fmt.Errorf("%w: it is a folder", store.ErrBadKey)
	}
	return store.ErrPrecondition
}

// match compares the ETag of the object at path, in whole however large.
func (s *Store) match(path, etag string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: there is no such object", store.ErrPrecondition)
	}
	if err != nil {
		return s.explain(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return s.explain(err)
	}
	have, err := tagOf(f, fi, fi.Size())
	if err != nil {
		return s.explain(err)
	}
	if have != etag {
		return store.ErrPrecondition
	}
	return nil
}

func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.remove(ctx, key); err != nil {
		return fmt.Errorf("dir: delete %s: %w", key, err)
	}
	return nil
}

func (s *Store) remove(ctx context.Context, key string) error {
	if err := s.begin(ctx, key); err != nil {
		return err
	}
	if err := s.prepare(); err != nil {
		return err
	}
	if err := s.lock.acquire(ctx); err != nil {
		return err
	}
	defer s.lock.release()
	err := syscall.Unlink(s.path(key)) // os.Remove would also remove an empty folder
	switch {
	case err == nil:
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
		return nil
	default:
		return s.explain(&os.PathError{Op: "unlink", Path: s.path(key), Err: err})
	}
	if err := syncDir(filepath.Dir(s.path(key))); err != nil {
		return fmt.Errorf("%w: %w", store.ErrAmbiguous, err)
	}
	return nil
}
