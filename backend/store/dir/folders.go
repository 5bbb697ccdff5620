package dir

import (
	"os"
	"path/filepath"
	"sync"
	"time"
)

// folders are those whose own names are known to be durable. Not bounded: a store has 256 pack and map folders each, and
// one per volume.
type folders struct {
	mu    sync.Mutex
	known map[string]bool
}

// ensure makes the folder of key and its parents and makes their names durable, once per process: a process that died
// between making a folder and syncing its parent may have left it to us.
func (s *Store) ensure(dir string) error {
	if s.settled.has(dir) || dir == s.root {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := s.ensure(parent); err != nil {
		return err
	}
	if err := s.mkdir(dir); err != nil && !os.IsExist(err) {
		return err
	}
	if err := syncDir(parent); err != nil {
		return err
	}
	s.settled.add(dir)
	return nil
}

// mkdir makes a folder, but never the side folder of a known store: by it the store is recognised, also when it is
// unmounted between a check and this.
func (s *Store) mkdir(dir string) error {
	if s.known && dir == filepath.Join(s.root, sideDir) {
		_, err := os.Stat(dir)
		return err
	}
	return os.Mkdir(dir, 0o700)
}

// prepare makes the side folder.
func (s *Store) prepare() error {
	if err := s.check(); err != nil {
		return err
	}
	return classify(s.ensure(filepath.Join(s.root, tmpDir)))
}

// forget drops what is known, after a folder turned out to be missing.
func (s *Store) forget() {
	s.settled.mu.Lock()
	defer s.settled.mu.Unlock()
	s.settled.known = nil
}

// recent is how long after a change a folder may still be in the memory of the kernel only; ext4 and xfs write out
// after 5 and 30 s.
const recent = 2 * time.Minute

// settle makes the names in dir durable if they changed lately.
func (s *Store) settle(dir string) error {
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if age := time.Since(fi.ModTime()); age > recent && s.settled.has(dir) {
		return nil
	}
	if err := s.ensure(dir); err != nil {
		return err
	}
	return syncDir(dir)
}

func (f *folders) has(dir string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.known[dir]
}

func (f *folders) add(dir string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known == nil {
		f.known = map[string]bool{}
	}
	f.known[dir] = true
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
