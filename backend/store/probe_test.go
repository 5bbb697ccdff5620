package store_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
)

// liar is a store with one vice.
type liar struct {
	store.Store
	vice string
}

func (l liar) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	switch l.vice {
	case "ignores If-None-Match":
		c.IfAbsent = false
	case "ignores If-Match":
		c.IfMatch = ""
	case "If-Match creates":
		if _, _, err := l.Get(ctx, key, store.Range{}); errors.Is(err, store.ErrNotFound) {
			c.IfMatch = ""
		}
	case "one ETag":
		c.IfMatch = ""
	case "refuses If-Match":
		if c.IfMatch != "" {
			return store.Info{}, store.ErrPrecondition
		}
	}
	in, err := l.Store.Put(ctx, key, body, c)
	switch l.vice {
	case "one ETag":
		in.ETag = "same"
	case "no ETag":
		in.ETag = ""
	}
	return in, err
}

func (l liar) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	if l.vice == "no ranges" || l.vice == "no suffixes" && r.Off < 0 {
		r = store.Range{}
	}
	body, in, err := l.Store.Get(ctx, key, r)
	switch l.vice {
	case "weak ETags":
		in.ETag = "W/" + in.ETag
	case "no ETag of a GET":
		in.ETag = ""
	case "old bodies":
		body = []byte("first")
	}
	return body, in, err
}

func (l liar) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	all, err := collect(l.Store.List(ctx, prefix, after))
	switch l.vice {
	case "no start-after":
		all, err = collect(l.Store.List(ctx, prefix, ""))
	case "unsorted":
		slices.Reverse(all)
	case "stale list":
		all = nil
	}
	return func(yield func(store.Info, error) bool) {
		for _, in := range all {
			if !yield(in, err) {
				return
			}
		}
	}
}

func collect(list iter.Seq2[store.Info, error]) (all []store.Info, err error) {
	for in, err := range list {
		if err != nil {
			return nil, err
		}
		all = append(all, in)
	}
	return all, nil
}

func TestProbeNamesWhatIsMissing(t *testing.T) {
	for vice, want := range map[string]string{
		"ignores If-None-Match": "the store ignores If-None-Match: it answered 200 to a PUT that had to be refused",
		"ignores If-Match":      "the store ignores If-Match: it answered 200 to a PUT that had to be refused",
		"If-Match creates":      "the store ignores If-Match on a missing object: it answered 200",
		"refuses If-Match":      "the store refuses a PUT whose If-Match with the present ETag condition holds",
		"one ETag":              "the store gives two bodies one ETag",
		"no ETag":               "the answer to a PUT has no ETag",
		"no ETag of a GET":      `GET tells the ETag "", the PUT told "`,
		"weak ETags":            `GET tells the ETag "W/`,
		"old bodies":            `a GET after the PUTs returned "first", not the body put last`,
		"no ranges":             "no ranged GET: bytes 3-6 of a 10 byte object returned 10 bytes",
		"no suffixes":           "no suffix GET: last 3 bytes of a 10 byte object returned 10 bytes",
		"no start-after":        `a list right after the PUTs shows ["a-z" "a/z" "b" "c"], not ["b" "c"]`,
		"unsorted":              `a list right after the PUTs shows ["c" "b" "a/z" "a-z"], not ["a-z" "a/z" "b" "c"]`,
		"stale list":            `a list right after the PUTs shows [], not`,
	} {
		inner := mem.New()
		err := store.Probe(t.Context(), liar{inner, vice})
		if !errors.Is(err, store.ErrUnsuitable) || !strings.HasPrefix(err.Error(), "probe of mem://: store unsuitable: ") ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", vice, err, want)
		}
		if keys, err := storetest.Keys(t.Context(), inner, "", ""); len(keys) != 0 || err != nil {
			t.Errorf("%s: the probe left %q, %v", vice, keys, err)
		}
	}
	if err := store.Probe(t.Context(), liar{mem.New(), ""}); err != nil {
		t.Errorf("an honest store: %v", err)
	}
}

// TestProbeOfAStoreThatIsDown: that is no verdict on the store.
func TestProbeOfAStoreThatIsDown(t *testing.T) {
	f := storetest.NewFault(mem.New())
	f.Unplug()
	if err := store.Probe(t.Context(), f); !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrUnsuitable) {
		t.Errorf("got %v", err)
	}
}
