package gc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
)

const (
	trashPrefix = "trash/"
	// cachedPages is enough for a walk; a page that forks share is walked once.
	cachedPages = 16
	maxRounds   = 100
)

// rootPrefixes in the order in which they must be listed: roots move to the trash, never out of it. Every object there is a root.
var rootPrefixes = []string{"volumes/", "images/", trashPrefix}

// marker finds what roots name.
type marker struct {
	*run
	pages   *manifest.Pages
	live    map[[32]byte]struct{} // names of packs and pages
	entered [][32]byte            // pages of the root at hand
	seen    map[string]string     // ETags of the roots as they were read
	expired []store.Info          // of the last round
}

func newMarker(r *run) *marker {
	return &marker{run: r, pages: manifest.NewPages(r.st, cachedPages), live: map[[32]byte]struct{}{}, seen: map[string]string{}}
}

// mark marks all that must live.
func (m *marker) mark(ctx context.Context) error {
	for round := 1; ; round++ {
		steady, err := m.round(ctx)
		if err != nil {
			return err
		}
		if steady && round >= 2 {
			return nil
		}
		if round == maxRounds {
			return fmt.Errorf("%w: lists go on naming roots that are gone", store.ErrUnavailable)
		}
	}
}

// round lists the roots and marks those that are new or have changed. steady: each was there when it was read.
func (m *marker) round(ctx context.Context) (steady bool, err error) {
	roots, err := m.list(ctx)
	if err != nil {
		return false, err
	}
	steady = true
	for _, root := range roots {
		if m.seen[root.Key] == root.ETag && root.ETag != "" {
			continue
		}
		err := m.root(ctx, root)
		if errors.Is(err, errGone) {
			steady = false
		} else if err != nil {
			return false, err
		}
		m.report.Roots = len(m.seen)
		m.progress()
	}
	return steady, nil
}

func (m *marker) list(ctx context.Context) (roots []store.Info, err error) {
	m.expired = nil
	for _, prefix := range rootPrefixes {
		for info, err := range m.st.List(ctx, prefix, "") {
			if err != nil {
				return nil, err
			}
			if strings.HasPrefix(info.Key, trashPrefix) && m.old(info.Modified) {
				m.expired = append(m.expired, info)
			} else {
				roots = append(roots, info)
			}
		}
	}
	return roots, nil
}

var errGone = errors.New("root is gone")

// root marks what one root names. A page may be missing because the root dropped it since and another collector took it: then the
// root has changed and is read again.
func (m *marker) root(ctx context.Context, listed store.Info) error {
	key := listed.Key
	for etag := ""; ; {
		body, info, err := m.st.Get(ctx, key, store.Range{})
		if errors.Is(err, store.ErrNotFound) {
			delete(m.writers.open, key)
			return errGone
		}
		if err != nil {
			return fmt.Errorf("read root %s: %w", key, err)
		}
		man, err := manifest.Decode(body)
		if err == nil {
			err = m.names(ctx, man)
		}
		if err == nil {
			before := cmp.Or(listed.ETag, m.seen[key])
			m.seen[key] = info.ETag
			m.writers.note(key, man)
			if man.Tombstone() && info.ETag != before {
				return errGone // after the list was made, for all that is known
			}
			return nil
		}
		if !errors.Is(err, store.ErrNotFound) || info.ETag == etag {
			return fmt.Errorf("root %s: %w", key, err)
		}
		etag = info.ETag
	}
}

// names marks what a manifest names. When it fails, the pages it entered are not marked, because not all below them is.
func (m *marker) names(ctx context.Context, man *manifest.Manifest) error {
	for _, e := range man.Tail {
		m.live[e.Ref.Hash] = struct{}{}
	}
	m.entered = m.entered[:0]
	for _, level := range man.Levels {
		if err := m.level(ctx, level); err != nil {
			for _, page := range m.entered {
				delete(m.live, page)
			}
			return err
		}
	}
	return nil
}

// level marks the pages and packs of a level, leaving out pages that are marked already.
func (m *marker) level(ctx context.Context, level manifest.Root) error {
	enter := func(page manifest.Root) bool {
		if _, ok := m.live[page.Page]; ok {
			return false
		}
		m.live[page.Page] = struct{}{}
		m.entered = append(m.entered, page.Page)
		return true
	}
	return m.pages.WalkPages(ctx, level, 0, math.MaxUint64, enter, func(r pack.Ref) error {
		m.live[r.Hash] = struct{}{}
		return nil
	})
}
