// Package mem is an object store in memory, for tests: the same conditional semantics as S3, a clock that tests may
// set, and nothing but a mutex inside, so that it works in a testing/synctest bubble.
package mem

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"glidefs-appliance/backend/store"
)

// Store is an in-memory store.Store. Bodies are copied on the way in and out.
type Store struct {
	name  string
	clock func() time.Time

	mu struct {
		sync.Mutex
		objects map[string]object
		// folders counts the objects below each folder: "a" and "a/b" for the object a/b/c.
		folders map[string]int
		version uint64
		// sorted holds the keys in order; nil after a key came or went.
		sorted []string
	}
}

type object struct {
	body     []byte // never modified once stored
	etag     string
	modified time.Time
}

func (o object) info(key string) store.Info {
	return store.Info{Key: key, Size: int64(len(o.body)), ETag: o.etag, Modified: o.modified}
}

// New returns an empty store whose clock is time.Now (virtual time inside synctest).
func New() *Store { return NewClock("", time.Now) }

// NewClock returns an empty store with its own clock; name shows in URL only.
func NewClock(name string, clock func() time.Time) *Store {
	s := &Store{name: name, clock: clock}
	s.mu.objects = map[string]object{}
	s.mu.folders = map[string]int{}
	return s
}

func (s *Store) URL() string { return "mem://" + s.name }

func (s *Store) Now(ctx context.Context) (time.Time, error) { return s.clock(), ctx.Err() }

func (s *Store) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	if err := begin(ctx, key); err != nil {
		return nil, store.Info{}, fmt.Errorf("mem: get %s: %w", key, err)
	}
	s.mu.Lock()
	o, ok := s.mu.objects[key]
	s.mu.Unlock()
	if !ok {
		return nil, store.Info{}, fmt.Errorf("mem: get %s: %w", key, store.ErrNotFound)
	}
	off, n, err := r.Resolve(int64(len(o.body)))
	if err != nil {
		return nil, store.Info{}, fmt.Errorf("mem: get %s: %w", key, err)
	}
	body, err := moved(ctx, o.body[off:off+n])
	if err != nil {
		return nil, store.Info{}, fmt.Errorf("mem: get %s: %w", key, err)
	}
	return body, o.info(key), nil
}

func (s *Store) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	if err := begin(ctx, key); err != nil {
		return store.Info{}, fmt.Errorf("mem: put %s: %w", key, err)
	}
	body, err := moved(ctx, body)
	if err != nil {
		return store.Info{}, fmt.Errorf("mem: put %s: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, exists := s.mu.objects[key]
	if c.IfAbsent && exists || c.IfMatch != "" && old.etag != c.IfMatch {
		return store.Info{}, fmt.Errorf("mem: put %s: %w", key, store.ErrPrecondition)
	}
	if !exists {
		if err := s.freeLocked(key); err != nil {
			return store.Info{}, fmt.Errorf("mem: put %s: %w", key, err)
		}
		s.countLocked(key, 1)
	}
	s.mu.version++
	o := object{body, strconv.FormatUint(s.mu.version, 16), s.clock()}
	s.mu.objects[key] = o
	return o.info(key), nil
}

// moved copies a body.
func moved(ctx context.Context, body []byte) ([]byte, error) {
	to := make([]byte, 0, len(body))
	err := store.InPieces(ctx, body, func(p []byte) error {
		to = append(to, p...)
		return nil
	})
	return to, err
}

func (s *Store) Delete(ctx context.Context, key string) error {
	if err := begin(ctx, key); err != nil {
		return fmt.Errorf("mem: delete %s: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.mu.objects[key]; ok {
		delete(s.mu.objects, key)
		s.countLocked(key, -1)
	}
	return nil
}

// listPage bounds how long List holds the lock.
const listPage = 1000

func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		for {
			if err := ctx.Err(); err != nil {
				yield(store.Info{}, fmt.Errorf("mem: list %s: %w", prefix, err))
				return
			}
			page := s.page(prefix, after)
			for _, in := range page {
				if !yield(in, nil) {
					return
				}
			}
			if len(page) < listPage {
				return
			}
			after = page[len(page)-1].Key
		}
	}
}

func (s *Store) page(prefix, after string) (page []store.Info) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := s.sortedLocked()
	i, _ := slices.BinarySearch(keys, max(prefix, after))
	for ; i < len(keys) && len(page) < listPage; i++ {
		if keys[i] <= after {
			continue
		}
		if !strings.HasPrefix(keys[i], prefix) {
			break
		}
		page = append(page, s.mu.objects[keys[i]].info(keys[i]))
	}
	return page
}

// +checklocks:s.mu
func (s *Store) sortedLocked() []string {
	if s.mu.sorted == nil {
		s.mu.sorted = slices.Sorted(maps.Keys(s.mu.objects))
	}
	return s.mu.sorted
}

func begin(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return store.CheckKey(key)
}
