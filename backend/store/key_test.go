package store

import (
	"errors"
	"testing"
)

func FuzzCheckKey(f *testing.F) {
	for _, seed := range []string{"a/b", "../x", "a//b", ".glidefs/lock", "volumes/v/manifest", "\x00", "a\\b", "é"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		err := CheckKey(key)
		if err != nil && !errors.Is(err, ErrBadKey) {
			t.Fatal(err)
		}
		if err != nil {
			return
		}
		for i, c := range []byte(key) {
			first := i == 0 || key[i-1] == '/'
			if c == 0 || c == '\\' || c >= 0x7f || c <= ' ' || first && (c == '.' || c == '/') {
				t.Fatalf("%q passes", key)
			}
		}
	})
}

func TestRange(t *testing.T) {
	for _, c := range []struct {
		r            Range
		size, off, n int64
		bad          bool
	}{
		{Range{}, 0, 0, 0, false},
		{Range{}, 10, 0, 10, false},
		{Range{0, 10}, 10, 0, 10, false},
		{Range{9, 1}, 10, 9, 1, false},
		{Range{3, 0}, 10, 3, 7, false},
		{Range{-3, 0}, 10, 7, 3, false},
		{Range{-30, 0}, 10, 0, 10, false},
		{Range{0, 11}, 10, 0, 0, true},
		{Range{10, 1}, 10, 0, 0, true},
		{Range{10, 0}, 10, 0, 0, true},
		{Range{11, 0}, 10, 0, 0, true},
		{Range{1, 1<<63 - 1}, 10, 0, 0, true},
		{Range{1<<63 - 1, 1<<63 - 1}, 10, 0, 0, true},
		{Range{5, -1}, 10, 0, 0, true},
		{Range{-1, 0}, 0, 0, 0, true},
		{Range{0, 1}, 0, 0, 0, true},
	} {
		off, n, err := c.r.Resolve(c.size)
		if c.bad != errors.Is(err, ErrRange) || off != c.off || n != c.n {
			t.Errorf("%+v of %d: %d, %d, %v", c.r, c.size, off, n, err)
		}
	}
}
