package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"glidefs-appliance/backend/store"
)

// List walks the folders in key order. It holds one folder's names at a time per level; an object that is put or
// deleted meanwhile may or may not be yielded, all others are, once.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		w := walk{ctx: ctx, s: s, prefix: prefix, after: after, yield: yield}
		if err := w.start(); err != nil && err != errStop {
			yield(store.Info{}, fmt.Errorf("dir: list %s: %w", prefix, err))
		}
	}
}

type walk struct {
	ctx           context.Context
	s             *Store
	prefix, after string
	yield         func(store.Info, error) bool
}

// errStop: the consumer wants no more.
var errStop = errors.New("stop")

// start begins in the deepest folder that holds all of prefix.
func (w *walk) start() error {
	folder := ""
	if i := strings.LastIndexByte(w.prefix, '/'); i >= 0 {
		folder = w.prefix[:i+1]
		if err := store.CheckKey(folder[:i]); err != nil {
			return err
		}
	}
	if err := w.s.check(); err != nil {
		return err
	}
	return w.folder(folder)
}

// folder yields what lies below folder, which is "" or ends in a slash.
func (w *walk) folder(folder string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(w.s.root, folder))
	if errors.Is(err, fs.ErrNotExist) {
		return w.s.check() // unmounted meanwhile, what is missing was not deleted
	}
	if err != nil {
		return w.s.explain(err)
	}
	for _, name := range keyOrder(entries) {
		if err := w.entry(folder + name); err != nil {
			return err
		}
	}
	return nil
}

// keyOrder returns the names that may be parts of keys, folders with a slash at the end: so sorted, a folder comes where
// the keys below it belong ("a-b" sorts before "a/b").
func keyOrder(entries []fs.DirEntry) []string {
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		switch {
		case store.CheckKey(e.Name()) != nil:
		case e.IsDir():
			names = append(names, e.Name()+"/")
		case e.Type().IsRegular():
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names
}

func (w *walk) entry(key string) error {
	if strings.HasSuffix(key, "/") {
		if w.below(key) {
			return w.folder(key)
		}
		return nil
	}
	if key <= w.after || !strings.HasPrefix(key, w.prefix) {
		return nil
	}
	in, err := w.info(key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil // deleted meanwhile
	case err != nil:
		return err
	case !w.yield(in, nil):
		return errStop
	}
	return nil
}

// below tells whether a key under folder may be wanted.
func (w *walk) below(folder string) bool {
	if !strings.HasPrefix(folder, w.prefix) && !strings.HasPrefix(w.prefix, folder) {
		return false
	}
	return folder > w.after || strings.HasPrefix(w.after, folder)
}

func (w *walk) info(key string) (store.Info, error) {
	f, fi, err := w.s.open(key)
	if err != nil {
		return store.Info{}, err
	}
	defer f.Close()
	etag, err := tagOf(f, fi, hashAtMost)
	if err != nil {
		return store.Info{}, w.s.explain(err)
	}
	return infoOf(key, fi, etag), nil
}
