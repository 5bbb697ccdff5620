// Package storetest holds what tests of and above the object store share: the contract suite that every implementation
// and every decorator runs (Run), a Store that fails by script (Fault), and a real S3 server (Versitygw).
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"glidefs-appliance/backend/store"
)

// Run checks that the store newStore returns keeps the contract of store.Store. newStore is called once per subtest;
// stores may share a place as long as each begins empty.
func Run(t *testing.T, newStore func(t *testing.T) store.Store) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, store.Store)
	}{
		{"put and get", putGet},
		{"bodies are not shared", ownership},
		{"missing", missing},
		{"ranges", ranges},
		{"if absent", ifAbsent},
		{"if match", ifMatch},
		{"16 creators, one winner", creators},
		{"no update is lost", counter},
		{"readers see whole objects", wholeObjects},
		{"list order", listOrder},
		{"list 1050 keys", listMany},
		{"key rules", keyRules},
		{"folder rule", folderRule},
		{"context", cancelled},
		{"bandwidth", bandwidth},
		{"clock", clock},
		{"probe", probe},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, newStore(t)) })
	}
}

func put(t testing.TB, s store.Store, key string, body []byte, c store.Condition) store.Info {
	t.Helper()
	in, err := s.Put(t.Context(), key, body, c)
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return in
}

func get(t testing.TB, s store.Store, key string, r store.Range) ([]byte, store.Info) {
	t.Helper()
	body, in, err := s.Get(t.Context(), key, r)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	return body, in
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}

// Random returns n bytes that compress badly, the same for the same seed.
func Random(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	body := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(body) // never fails
	return body
}

func putGet(t *testing.T, s store.Store) {
	for _, size := range []int{0, 1, 4095, 1 << 20, 5<<20 + 1} {
		key, body := fmt.Sprintf("packs/ab/size-%d", size), Random(uint64(size), size)
		in := put(t, s, key, body, store.Condition{})
		got, gin := get(t, s, key, store.Range{})
		switch {
		case !bytes.Equal(got, body):
			t.Fatalf("%s: other bytes came back", key)
		case in.Key != key || in.Size != int64(size) || in.ETag == "":
			t.Fatalf("put %s: info %+v", key, in)
		case gin.Key != key || gin.Size != in.Size || gin.ETag != in.ETag || gin.Modified.IsZero():
			t.Fatalf("get %s: info %+v, put said %+v", key, gin, in)
		}
	}
}

func ownership(t *testing.T, s store.Store) {
	body := []byte("hello")
	put(t, s, "a/b", body, store.Condition{})
	body[0] = 'X'
	got, _ := get(t, s, "a/b", store.Range{})
	got[1] = 'X'
	if again, _ := get(t, s, "a/b", store.Range{}); string(again) != "hello" {
		t.Fatalf("the stored body became %q", again)
	}
}

func missing(t *testing.T, s store.Store) {
	_, _, err := s.Get(t.Context(), "not/there", store.Range{})
	wantErr(t, err, store.ErrNotFound)
	_, _, err = s.Get(t.Context(), "not/there", store.Range{Off: 5, Len: 5})
	wantErr(t, err, store.ErrNotFound)
	if err := s.Delete(t.Context(), "not/there"); err != nil {
		t.Fatalf("delete of a missing object: %v", err)
	}
	put(t, s, "not/there", []byte("x"), store.Condition{})
	if err := s.Delete(t.Context(), "not/there"); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.Get(t.Context(), "not/there", store.Range{})
	wantErr(t, err, store.ErrNotFound)
}

func ranges(t *testing.T, s store.Store) {
	body := Random(1, 10_000)
	in := put(t, s, "packs/aa/r", body, store.Condition{})
	put(t, s, "packs/aa/empty", nil, store.Condition{})
	for _, c := range []struct {
		key  string
		r    store.Range
		want []byte // nil: ErrRange
	}{
		{"packs/aa/r", store.Range{Off: 0, Len: 1}, body[:1]},
		{"packs/aa/r", store.Range{Off: 4096, Len: 4096}, body[4096:8192]},
		{"packs/aa/r", store.Range{Off: 9_999, Len: 1}, body[9_999:]},
		{"packs/aa/r", store.Range{Off: 9_000}, body[9_000:]},
		{"packs/aa/r", store.Range{Off: -100}, body[9_900:]},
		{"packs/aa/r", store.Range{Off: -20_000}, body},
		{"packs/aa/r", store.Range{Off: 0, Len: 10_000}, body},
		{"packs/aa/r", store.Range{Off: 0, Len: 10_001}, nil},
		{"packs/aa/r", store.Range{Off: 9_999, Len: 2}, nil},
		{"packs/aa/r", store.Range{Off: 10_000, Len: 1}, nil},
		{"packs/aa/r", store.Range{Off: 10_000}, nil},
		{"packs/aa/empty", store.Range{}, []byte{}},
		{"packs/aa/empty", store.Range{Off: 0, Len: 1}, nil},
	} {
		got, gin, err := s.Get(t.Context(), c.key, c.r)
		switch {
		case c.want == nil && !errors.Is(err, store.ErrRange):
			t.Errorf("%s %s: error is %v, want ErrRange", c.key, c.r, err)
		case c.want != nil && err != nil:
			t.Errorf("%s %s: %v", c.key, c.r, err)
		case c.want != nil && !bytes.Equal(got, c.want):
			t.Errorf("%s %s: other bytes came back", c.key, c.r)
		case c.want != nil && c.key == in.Key && gin.Size != in.Size:
			t.Errorf("%s %s: size %d is not the object's", c.key, c.r, gin.Size)
		}
	}
}

func ifAbsent(t *testing.T, s store.Store) {
	absent := store.Condition{IfAbsent: true}
	put(t, s, "volumes/v/manifest", []byte("one"), absent)
	_, err := s.Put(t.Context(), "volumes/v/manifest", []byte("two"), absent)
	wantErr(t, err, store.ErrPrecondition)
	if got, _ := get(t, s, "volumes/v/manifest", store.Range{}); string(got) != "one" {
		t.Fatalf("the refused PUT left %q", got)
	}
	if err := s.Delete(t.Context(), "volumes/v/manifest"); err != nil {
		t.Fatal(err)
	}
	put(t, s, "volumes/v/manifest", []byte("three"), absent)
}

func ifMatch(t *testing.T, s store.Store) {
	const key = "volumes/v/manifest"
	_, err := s.Put(t.Context(), key, []byte("x"), store.Condition{IfMatch: "0123456789abcdef"})
	wantErr(t, err, store.ErrPrecondition)
	one := put(t, s, key, []byte("one"), store.Condition{})
	two := put(t, s, key, []byte("two"), store.Condition{IfMatch: one.ETag})
	if one.ETag == two.ETag {
		t.Fatal("two bodies, one ETag")
	}
	_, err = s.Put(t.Context(), key, []byte("three"), store.Condition{IfMatch: one.ETag})
	wantErr(t, err, store.ErrPrecondition)
	got, in := get(t, s, key, store.Range{})
	if string(got) != "two" || in.ETag != two.ETag {
		t.Fatalf("%q with ETag %s, want \"two\" with %s", got, in.ETag, two.ETag)
	}
	put(t, s, key, []byte("three"), store.Condition{IfMatch: in.ETag})
}

func keyRules(t *testing.T, s store.Store) {
	long := string(bytes.Repeat([]byte("x"), store.MaxPart))
	for _, key := range []string{"a", "volumes/my-disk_1.0/manifest", "packs/ff/A=b+c@d~e", long, long[1:] + "/" + long} {
		put(t, s, key, []byte(key), store.Condition{})
		if got, _ := get(t, s, key, store.Range{}); string(got) != key {
			t.Fatalf("%s holds %q", key, got)
		}
	}
	for _, key := range []string{"", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.hidden", "a b", "a\\b", "a\x00b", "é",
		"a%2fb", "a?b", "a#b", "a*b", long + "x", long + "/" + long + "/" + long + "/" + long} {
		_, err := s.Put(t.Context(), key, nil, store.Condition{})
		wantErr(t, err, store.ErrBadKey)
		_, _, err = s.Get(t.Context(), key, store.Range{})
		wantErr(t, err, store.ErrBadKey)
		wantErr(t, s.Delete(t.Context(), key), store.ErrBadKey)
	}
}

// folderRule: a store may refuse a key below an object, or hold both; it may not damage the first.
func folderRule(t *testing.T, s store.Store) {
	put(t, s, "volumes/v", []byte("object"), store.Condition{})
	if _, err := s.Put(t.Context(), "volumes/v/manifest", []byte("below"), store.Condition{}); err == nil {
		if got, _ := get(t, s, "volumes/v/manifest", store.Range{}); string(got) != "below" {
			t.Fatalf("the key below holds %q", got)
		}
	}
	if got, _ := get(t, s, "volumes/v", store.Range{}); string(got) != "object" {
		t.Fatalf("the object became %q", got)
	}
}

func cancelled(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Put(ctx, "a/b", []byte("x"), store.Condition{})
	wantErr(t, err, context.Canceled)
	_, _, err = s.Get(ctx, "a/b", store.Range{})
	wantErr(t, err, context.Canceled)
	wantErr(t, s.Delete(ctx, "a/b"), context.Canceled)
	_, err = s.Now(ctx)
	wantErr(t, err, context.Canceled)
	_, err = Keys(ctx, s, "", "")
	wantErr(t, err, context.Canceled)
	_, _, err = s.Get(t.Context(), "a/b", store.Range{})
	wantErr(t, err, store.ErrNotFound)
}

func clock(t *testing.T, s store.Store) {
	before, err := s.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a/b", []byte("x"), store.Condition{})
	_, in := get(t, s, "a/b", store.Range{})
	after, err := s.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const grain = 2 * time.Second // HTTP dates are whole seconds
	if in.Modified.Before(before.Add(-grain)) || in.Modified.After(after.Add(grain)) {
		t.Fatalf("modified at %s, between %s and %s by the store's own clock", in.Modified, before, after)
	}
}

func probe(t *testing.T, s store.Store) {
	put(t, s, "volumes/v/manifest", []byte("x"), store.Condition{})
	if err := store.Probe(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	keys, err := Keys(t.Context(), s, "", "")
	if err != nil || !slices.Equal(keys, []string{"volumes/v/manifest"}) {
		t.Fatalf("the probe left %q, %v", keys, err)
	}
}

// Keys lists the keys under prefix after `after`.
func Keys(ctx context.Context, s store.Store, prefix, after string) (keys []string, err error) {
	for in, err := range s.List(ctx, prefix, after) {
		if err != nil {
			return keys, err
		}
		keys = append(keys, in.Key)
	}
	return keys, nil
}

// bandwidth: bodies move in pieces where there is a limit, each of which waits for its turn.
func bandwidth(t *testing.T, s store.Store) {
	g := store.NewGateway(s, store.GatewayOptions{UploadLimit: 1 << 40, DownloadLimit: 1 << 40})
	var moved atomic.Int32
	ctx := store.OnMoved(t.Context(), func() { moved.Add(1) })
	body := Random(7, 1<<20)
	if _, err := g.Put(ctx, "a/b", body, store.Condition{}); err != nil || moved.Load() < 8 {
		t.Errorf("put: %d pieces, %v", moved.Load(), err)
	}
	moved.Store(0)
	got, _, err := g.Get(ctx, "a/b", store.Range{})
	if err != nil || moved.Load() < 8 || !bytes.Equal(got, body) {
		t.Errorf("get: %d pieces, %v", moved.Load(), err)
	}
	ended, cancel := context.WithCancel(ctx)
	stop := store.OnMoved(ended, cancel)
	if _, err := g.Put(stop, "a/c", body, store.Condition{}); !errors.Is(err, context.Canceled) || store.Retryable(err) {
		t.Errorf("put that is given up in the middle: %v", err)
	}
	if _, _, err := g.Get(t.Context(), "a/c", store.Range{}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get of what was given up: %v", err)
	}
}
