package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"glidefs-appliance/backend/store"
)

func (s *Store) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	body, in, err := s.get(ctx, key, r)
	if err != nil {
		return nil, store.Info{}, fmt.Errorf("dir: get %s: %w", key, err)
	}
	return body, in, nil
}

func (s *Store) get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	if err := s.begin(ctx, key); err != nil {
		return nil, store.Info{}, err
	}
	f, fi, err := s.open(key)
	if err != nil {
		return nil, store.Info{}, err
	}
	defer f.Close()
	off, n, err := r.Resolve(fi.Size())
	if err != nil {
		return nil, store.Info{}, err
	}
	body := make([]byte, n)
	section := io.NewSectionReader(f, off, n)
	err = store.InPieces(ctx, body, func(p []byte) error {
		_, err := io.ReadFull(section, p)
		return err
	})
	if err != nil {
		return nil, store.Info{}, s.explain(err)
	}
	atMost := int64(hashAtMost)
	if r.Whole() {
		atMost = fi.Size()
		if err := s.settle(filepath.Dir(f.Name())); err != nil {
			return nil, store.Info{}, s.explain(err)
		}
	}
	etag, err := tagOf(f, fi, atMost)
	if err != nil {
		return nil, store.Info{}, s.explain(err)
	}
	return body, infoOf(key, fi, etag), nil
}

// open opens the object of key; a folder of that name is no object.
func (s *Store) open(key string) (*os.File, os.FileInfo, error) {
	f, err := os.Open(s.path(key))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		if gone := s.check(); gone != nil {
			return nil, nil, gone
		}
		return nil, nil, store.ErrNotFound
	}
	if err != nil {
		return nil, nil, s.explain(err)
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = store.ErrNotFound
	} else if err != nil {
		err = s.explain(err)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, fi, nil
}
