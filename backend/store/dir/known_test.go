package dir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"glidefs-appliance/backend/store"
)

func openKnown(t *testing.T, root string) *Store {
	t.Helper()
	s, err := OpenKnown(root)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// allAway: every request says that the store is away, and why.
func allAway(t *testing.T, s *Store, why string) {
	t.Helper()
	_, put := s.Put(t.Context(), "volumes/v", []byte("x"), store.Condition{})
	_, create := s.Put(t.Context(), "packs/p", []byte("x"), store.Condition{IfAbsent: true})
	_, _, get := s.Get(t.Context(), "volumes/v", store.Range{})
	_, now := s.Now(t.Context())
	list := errors.New("an empty list")
	for _, list = range s.List(t.Context(), "", "") {
	}
	for op, err := range map[string]error{"put": put, "create": create, "get": get, "now": now, "list": list, "delete": s.Delete(t.Context(), "volumes/v")} {
		if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want unavailable: %s", op, err, why)
		}
	}
}

// TestKnownStoreIsNotMounted: the folder is missing, or is only the mount point. Nothing is made in its place, whether it
// was so from the beginning or comes to be, and the store goes on once it is back.
func TestKnownStoreIsNotMounted(t *testing.T) {
	root := filepath.Join(t.TempDir(), "mnt", "store")
	mustPut(t, mustOpen(t, root), "volumes/v", "x")
	aside := filepath.Join(t.TempDir(), "aside")
	running := openKnown(t, root)
	mustPut(t, running, "packs/q", "x")
	if err := os.Rename(root, aside); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Store{running, openKnown(t, root)} {
		allAway(t, s, "the directory "+root+" does not exist")
		if _, err := os.Stat(root); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("the missing folder: %v", err)
		}
	}
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Store{running, openKnown(t, root)} {
		allAway(t, s, "the directory "+root+" has no folder .glidefs")
		_ = s.ensure(filepath.Join(root, tmpDir)) // unmounted right after the check
		if entries, err := os.ReadDir(root); err != nil || len(entries) != 0 {
			t.Fatalf("below the mount point: %v, %v", entries, err)
		}
	}
	if err := os.Remove(root); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(aside, root); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Store{running, openKnown(t, root)} {
		if got := mustGet(t, s, "volumes/v"); got != "x" {
			t.Errorf("back again: %q", got)
		}
		mustPut(t, s, "packs/q", "y")
	}
}
