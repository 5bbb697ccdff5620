package gc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
)

// OpenError: garbage younger than manifest.Grace can't be told from what a writer is about to name.
type OpenError struct {
	Name   string         // of the volume
	Owner  manifest.Owner // who may be writing
	Since  time.Time
	Making bool // there is no such volume yet, see manifest.Announce
}

func (e *OpenError) Error() string {
	return fmt.Sprintf("volume %s is open on %s since %s, which may be about to name objects that nothing names yet", e.Name, e.Owner.Host, e.Since.UTC().Format(time.RFC3339))
}

// writers knows who may be about to name objects that nothing names yet, for a Run with a short Grace.
type writers struct {
	quiet map[[16]byte]bool             // of Options.Quiet
	open  map[string]*manifest.Manifest // as they were read last, by key
}

// ask must come before the first list of roots: what a writer named before it was asked, the lists show.
func (r *run) ask(ctx context.Context) error {
	r.writers.open = map[string]*manifest.Manifest{}
	if r.Quiet != nil {
		r.writers.quiet = r.Quiet()
	}
	for info, err := range r.st.List(ctx, manifest.WritersPrefix, "") {
		if err != nil {
			return err
		}
		if info.Modified.Before(r.start.Add(-manifest.Grace)) { // its writer has given up: manifest.ErrLate
			err = r.remove(ctx, []store.Info{info})
		} else {
			err = r.announced(ctx, info.Key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *run) announced(ctx context.Context, key string) error {
	body, _, err := r.st.Get(ctx, key, store.Range{})
	if errors.Is(err, store.ErrNotFound) {
		return nil // the volume is there by now, or never will be
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	m, err := manifest.Decode(body)
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	return openError(m, true)
}

func openError(m *manifest.Manifest, making bool) error {
	return &OpenError{Name: m.Name, Owner: m.Owner, Since: m.Since, Making: making}
}

// note keeps what a root said when it was read last. A copy of a manifest, such as a snapshot, has no writer.
func (w *writers) note(key string, m *manifest.Manifest) {
	delete(w.open, key)
	if w.open != nil && key == manifest.Key(m.Name) && m.Open() && !w.quiet[m.Log] {
		w.open[key] = m
	}
}

// closed returns an OpenError unless nobody writes, once all roots are marked.
func (w *writers) closed() error {
	if len(w.open) == 0 {
		return nil
	}
	byName := func(a, b *manifest.Manifest) int { return cmp.Compare(a.Name, b.Name) }
	return openError(slices.MinFunc(slices.Collect(maps.Values(w.open)), byName), false)
}
