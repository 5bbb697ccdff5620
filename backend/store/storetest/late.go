package storetest

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"glidefs-appliance/backend/store"
)

// latePut is on its way: its sender has given up on it, the store hasn't seen it yet.
type latePut struct {
	q    Request
	body []byte
}

// Late makes a PUT time out at once (ErrAmbiguous) and keeps it under way: it reaches the store when ApplyLate is called,
// which may be after the retry, with the condition judged then.
func Late() Action {
	return Action{put: func(f *Fault, _ context.Context, q Request, body []byte) (store.Info, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.mu.late = append(f.mu.late, latePut{q, append([]byte(nil), body...)})
		return store.Info{}, fmt.Errorf("fault: %s: %w: timed out", q, store.ErrAmbiguous)
	}}
}

// ApplyLate lets the PUTs that Late holds reach the store, in order. It returns what the store answered each.
func (f *Fault) ApplyLate(ctx context.Context) (answers []error) {
	f.mu.Lock()
	late := f.mu.late
	f.mu.late = nil
	f.mu.Unlock()
	for _, p := range late {
		_, err := f.inner.Put(store.With(ctx, p.q.Class), p.q.Key, p.body, p.q.Cond)
		answers = append(answers, err)
	}
	return answers
}

// FreezeLists makes every List answer from what is stored now, until ThawLists: a stale list.
func (f *Fault) FreezeLists(ctx context.Context) error {
	stale := map[string]store.Info{}
	for in, err := range f.inner.List(ctx, "", "") {
		if err != nil {
			return err
		}
		stale[in.Key] = in
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.stale = stale
	return nil
}

// ThawLists makes lists fresh again.
func (f *Fault) ThawLists() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.stale = nil
}

func (f *Fault) list(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	f.mu.Lock()
	stale := f.mu.stale
	f.mu.Unlock()
	if stale == nil {
		return f.inner.List(ctx, prefix, after)
	}
	return func(yield func(store.Info, error) bool) {
		for _, key := range sortedKeys(stale) {
			if key > after && strings.HasPrefix(key, prefix) && !yield(stale[key], nil) {
				return
			}
		}
	}
}
