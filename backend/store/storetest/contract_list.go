package storetest

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"glidefs-appliance/backend/store"
)

func wantKeys(t *testing.T, s store.Store, prefix, after string, want ...string) {
	t.Helper()
	got, err := Keys(t.Context(), s, prefix, after)
	if err != nil {
		t.Fatalf("list %q after %q: %v", prefix, after, err)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("list %q after %q:\n got %q\nwant %q", prefix, after, got, want)
	}
}

// listOrder has keys whose order differs from that of a walk through folders: '-', '.' and '+' sort before '/'.
func listOrder(t *testing.T, s store.Store) {
	wantKeys(t, s, "", "")
	all := []string{"a+b/x", "a-b/x", "a-c", "a.b", "a/b-c/z", "a/b/y", "a/b/z", "a0", "b"}
	for _, k := range all {
		put(t, s, k, []byte(k), store.Condition{})
	}
	wantKeys(t, s, "", "", all...)
	wantKeys(t, s, "a", "", all[:8]...)
	wantKeys(t, s, "a/", "", all[4:7]...)
	wantKeys(t, s, "a/b", "", all[4:7]...)
	wantKeys(t, s, "a/b/", "", all[5:7]...)
	wantKeys(t, s, "a-", "", all[1:3]...)
	wantKeys(t, s, "a/b/y", "", "a/b/y")
	wantKeys(t, s, "nothing/", "")
	wantKeys(t, s, "", "a/b/y", all[6:]...)
	wantKeys(t, s, "", "a/b", all[4:]...)
	wantKeys(t, s, "a/", "a-zz", all[4:7]...)
	wantKeys(t, s, "a/", "a/b/z")
	wantKeys(t, s, "a/", "b")
	for range s.List(t.Context(), "", "") {
		break
	}
	for in, err := range s.List(t.Context(), "", "") {
		_, got := get(t, s, in.Key, store.Range{})
		if err != nil || in.Size != got.Size || in.ETag != got.ETag || in.Modified.IsZero() {
			t.Fatalf("list says %+v, %v; get says %+v", in, err, got)
		}
	}
}

func listMany(t *testing.T, s store.Store) {
	const n = 1050
	want := make([]string, n)
	for i := range want {
		want[i] = fmt.Sprintf("packs/%02x/%04d", i%7, i)
	}
	var wg sync.WaitGroup
	for part := range slices.Chunk(want, 100) {
		wg.Go(func() {
			for _, k := range part {
				if _, err := s.Put(t.Context(), k, []byte(k), store.Condition{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(want)
	wantKeys(t, s, "packs/", "", want...)
	wantKeys(t, s, "packs/", want[999], want[1000:]...)
	wantKeys(t, s, "packs/06/", "packs/06/1042", "packs/06/1049")
}
