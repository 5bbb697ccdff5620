// Package dir is an object store in a local directory: the embedded default. Any number of processes may use one
// directory at once; the conditions of a PUT hold among all of them.
//
//	root/
//	  packs/ab/abcdef...        an object is the file of its key, whole and raw: cp, rsync and aws s3 sync may move a store
//	  volumes/web/manifest
//	  .glidefs/lock             flock: held while an object that may exist is replaced or removed
//	  .glidefs/tmp/<random>     bodies being written; never an object, never listed (no part of a key begins with a dot)
//
// By its side folder a store that was used before is known from the mount point of a file system that is not mounted
// (OpenKnown): where it is missing, nothing is made or written.
//
// # PUT
//
//	tmp file: version xattr, body, fdatasync
//	IfAbsent:   link(tmp, key), EEXIST = ErrPrecondition; unlink(tmp)
//	otherwise:  flock; IfMatch: compare; rename(tmp, key); unlock
//	fsync(folder of key)
//
// link decides by itself, so IfAbsent takes no lock. An unconditional PUT and a DELETE do take it: between the comparison
// and the rename of an IfMatch they would be overwritten though they came after it.
//
// A body is durable before it has its name, and the name is durable before PUT returns. A name is visible a little
// before that, so a whole GET first syncs the folder if it changed lately: what a manifest reader acts upon (it lets
// the write log go) must not be undone by a power cut.
//
// # ETags
//
// The ETag is a random version, kept in the xattr user.glidefs.version, made for each PUT. Hashing instead would cost
// every pack a pass over its bytes. Where the xattr is missing (the file system has none, a restore without them)
// the ETag is the SHA-256 of the body, and is left out of ranged GETs and listings of objects over 1 MiB. A version
// written first and its body after reach the disk in that order or not at all, and the other way round, an object that
// lost its version has another ETag, which fails an IfMatch: the safe side.
//
// # Locks
//
//	Store.slot      one process-local holder at a time, taken with a context
//	  flock         among processes; polled, never waited for, so that a stopped process can't hang us
//	Store.folders   leaf
package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"glidefs-appliance/backend/store"
)

const (
	sideDir  = ".glidefs"
	tmpDir   = sideDir + "/tmp"
	lockFile = sideDir + "/lock"
)

// Store is a store.Store in the directory root.
type Store struct {
	root string
	// known: the side folder was made long ago. Where it is missing this is another directory, and nothing is written.
	known bool
	lock  *lock
	// settled remembers the folders whose own names this process made durable.
	settled folders
}

// Open returns the store in the directory path. A missing directory is made when create is set, else it is
// store.ErrNoBucket. Nothing is written before the first PUT.
func Open(path string, create bool) (*Store, error) {
	root, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("store directory %s: %w", path, err)
	}
	if create {
		if err := makeRoot(root); err != nil {
			return nil, fmt.Errorf("make store directory %s: %w", root, classify(err))
		}
	}
	if err := checkRoot(root); err != nil {
		return nil, err
	}
	s := newStore(root)
	s.removeStaleTemps()
	return s, nil
}

// OpenKnown returns the store in a directory that has been written to before. While it is not there, because its file
// system is not mounted, every request is store.ErrUnavailable, and no folder is made in its place: not even where the mount
// point is there, since what would be written below it is gone with the next mount, and an empty store has lost all disks.
func OpenKnown(path string) (*Store, error) {
	root, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("store directory %s: %w", path, err)
	}
	s := newStore(root)
	s.known = true
	s.removeStaleTemps()
	return s, nil
}

func newStore(root string) *Store {
	return &Store{root: root, lock: newLock(filepath.Join(root, lockFile))}
}

// makeRoot makes root and its parents, and makes their names durable.
func makeRoot(root string) error {
	if _, err := os.Stat(root); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(root)
	if err := makeRoot(parent); err != nil {
		return err
	}
	if err := os.Mkdir(root, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

func checkRoot(root string) error {
	fi, err := os.Stat(root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: the directory %s does not exist", store.ErrNoBucket, root)
	case err != nil:
		return fmt.Errorf("store directory: %w", classify(err))
	case !fi.IsDir():
		return fmt.Errorf("%w: %s is not a directory", store.ErrNoBucket, root)
	}
	return nil
}

// check tells whether the root is there, and for a known store whether it is the one it was.
func (s *Store) check() error {
	err := checkRoot(s.root)
	if !s.known {
		return err
	}
	if err == nil {
		err = checkSide(s.root)
	}
	if errors.Is(err, store.ErrNoBucket) {
		return fmt.Errorf("%w, is its file system mounted? (%w)", store.ErrUnavailable, err)
	}
	return err
}

func checkSide(root string) error {
	_, err := os.Stat(filepath.Join(root, sideDir))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: the directory %s has no folder %s, so it is not the store that was there; if the store was copied "+
			"there without it, make that folder", store.ErrNoBucket, root, sideDir)
	case err != nil:
		return fmt.Errorf("store directory: %w", classify(err))
	}
	return nil
}

func (s *Store) URL() string { return (&url.URL{Scheme: "file", Path: s.root}).String() }

// Now is the clock of the file system, which differs from ours on a network mount: the lock file is touched and read.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, fmt.Errorf("dir: now: %w", err)
	}
	if err := s.prepare(); err != nil {
		return time.Time{}, fmt.Errorf("dir: now: %w", err)
	}
	t, err := touch(filepath.Join(s.root, lockFile))
	if err != nil {
		return time.Time{}, fmt.Errorf("dir: now: %w", s.explain(err))
	}
	return t, nil
}

func (s *Store) begin(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return store.CheckKey(key)
}

func (s *Store) path(key string) string { return filepath.Join(s.root, filepath.FromSlash(key)) }
