package mem

import (
	"fmt"
	"iter"

	"glidefs-appliance/backend/store"
)

// freeLocked refuses a key that is a folder of another or lies below one.
//
// +checklocks:s.mu
func (s *Store) freeLocked(key string) error {
	for dir := range folders(key) {
		if _, ok := s.mu.objects[dir]; ok {
			return fmt.Errorf("%w: %s is an object", store.ErrBadKey, dir)
		}
	}
	if s.mu.folders[key] > 0 {
		return fmt.Errorf("%w: it is a folder", store.ErrBadKey)
	}
	return nil
}

// countLocked notes that key came (1) or went (-1).
//
// +checklocks:s.mu
func (s *Store) countLocked(key string, by int) {
	s.mu.sorted = nil
	for dir := range folders(key) {
		if s.mu.folders[dir] += by; s.mu.folders[dir] == 0 {
			delete(s.mu.folders, dir)
		}
	}
}

// folders yields the folders key lies in, outermost first.
func folders(key string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range len(key) {
			if key[i] == '/' && !yield(key[:i]) {
				return
			}
		}
	}
}
