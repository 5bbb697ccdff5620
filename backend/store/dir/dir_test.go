package dir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"glidefs-appliance/backend/store"
)

// TestMain: with one of these variables set, this binary is one more process that uses the store.
func TestMain(m *testing.M) {
	for name, child := range map[string]func(root string) error{
		"GLIDEFS_DIR_TEST_ADD":     func(root string) error { return addMany(root, 200) },
		"GLIDEFS_DIR_TEST_FOREVER": putForEver,
		"GLIDEFS_DIR_TEST_CHANGE":  changeForEver,
	} {
		if root := os.Getenv(name); root != "" {
			if err := child(root); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	os.Exit(m.Run())
}

// addMany adds 1 to the counter n times by compare-and-swap.
func addMany(root string, n int) error {
	s, err := Open(root, false)
	if err != nil {
		return err
	}
	ctx := context.Background()
	for n > 0 {
		body, in, err := s.Get(ctx, "volumes/v/manifest", store.Range{})
		if err != nil {
			return err
		}
		i, err := strconv.Atoi(string(body))
		if err != nil {
			return err
		}
		_, err = s.Put(ctx, "volumes/v/manifest", []byte(strconv.Itoa(i+1)), store.Condition{IfMatch: in.ETag})
		if err == nil {
			n--
		} else if !errors.Is(err, store.ErrPrecondition) {
			return err
		}
	}
	return nil
}

// TestManyProcesses: four processes count in one object, and no increment is lost.
func TestManyProcesses(t *testing.T) {
	root := t.TempDir()
	s := mustOpen(t, root)
	mustPut(t, s, "volumes/v/manifest", "0")
	var children []*exec.Cmd
	for range 4 {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), "GLIDEFS_DIR_TEST_ADD="+root)
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		children = append(children, c)
	}
	for _, c := range children {
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	}
	if got := mustGet(t, s, "volumes/v/manifest"); got != "800" {
		t.Fatalf("4 x 200 increments make %s", got)
	}
}

func mustOpen(t *testing.T, root string) *Store {
	t.Helper()
	s, err := Open(root, true)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustPut(t *testing.T, s *Store, key, body string) store.Info {
	t.Helper()
	in, err := s.Put(t.Context(), key, []byte(body), store.Condition{})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func mustGet(t *testing.T, s *Store, key string) string {
	t.Helper()
	body, _, err := s.Get(t.Context(), key, store.Range{})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestOpenRefused: the messages name the directory and the reason.
func TestOpenRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, create := range []bool{false, true} {
		if _, err := Open(file, create); !errors.Is(err, store.ErrNoBucket) || !strings.Contains(err.Error(), file+" is not a directory") {
			t.Errorf("a file as root: %v", err)
		}
	}
	_, err := Open("/proc/no-such-folder/x", true)
	if err == nil || !strings.Contains(err.Error(), "make store directory /proc/no-such-folder/x: ") {
		t.Errorf("a root that can't be made: %v", err)
	}
}

func TestOpenMissing(t *testing.T) {
	root := filepath.Join(t.TempDir(), "a", "b")
	_, err := Open(root, false)
	if !errors.Is(err, store.ErrNoBucket) || !strings.Contains(err.Error(), "the directory "+root+" does not exist") {
		t.Fatal(err)
	}
	s := mustOpen(t, root)
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 0 {
		t.Fatalf("opening wrote %v, %v", entries, err)
	}
	mustPut(t, s, "a/b", "x")
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), "a/b", nil, store.Condition{}); !errors.Is(err, store.ErrNoBucket) {
		t.Errorf("put into a root that is gone: %v", err)
	}
	if _, _, err := s.Get(t.Context(), "a/b", store.Range{}); !errors.Is(err, store.ErrNoBucket) {
		t.Errorf("get from a root that is gone: %v", err)
	}
	for _, err := range s.List(t.Context(), "", "") {
		if !errors.Is(err, store.ErrNoBucket) {
			t.Errorf("list of a root that is gone: %v", err)
		}
	}
}

// TestFoldersComeBack: somebody removed folders behind our back; the next PUT makes them again.
func TestFoldersComeBack(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	mustPut(t, s, "a/b/c", "x")
	for _, name := range []string{"a", sideDir} {
		if err := os.RemoveAll(filepath.Join(s.root, name)); err != nil {
			t.Fatal(err)
		}
		mustPut(t, s, "a/b/c", "y")
		if got := mustGet(t, s, "a/b/c"); got != "y" {
			t.Fatalf("after removing %s: %q", name, got)
		}
	}
}

func TestBodiesAreRawFilesAndTempsAreNoObjects(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	mustPut(t, s, "a/b", "raw")
	if raw, err := os.ReadFile(filepath.Join(s.root, "a", "b")); err != nil || string(raw) != "raw" {
		t.Fatalf("%q, %v", raw, err)
	}
	if temps, err := os.ReadDir(filepath.Join(s.root, tmpDir)); err != nil || len(temps) != 0 {
		t.Fatalf("left over: %v, %v", temps, err)
	}
	left := filepath.Join(s.root, tmpDir, "put-123")
	fresh := filepath.Join(s.root, tmpDir, "put-456")
	for _, path := range []string{left, fresh, filepath.Join(s.root, "a", ".hidden"), filepath.Join(s.root, "a", "b c")} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var keys []string
	for in, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, in.Key)
	}
	if len(keys) != 1 || keys[0] != "a/b" {
		t.Fatalf("listed %q", keys)
	}
	old := time.Now().Add(-2 * staleAfter)
	if err := os.Chtimes(left, old, old); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, s.root)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a killed process left is still there: %v", err)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("a PUT under way was removed: %v", err)
	}
}

// TestETagWithoutVersion: a store copied without xattrs, or edited in place, still compares and swaps by content.
func TestETagWithoutVersion(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	first := mustPut(t, s, "a", "one")
	if !strings.HasPrefix(first.ETag, "v-") {
		t.Fatalf("no version on the file system of the tests: %s", first.ETag)
	}
	same := mustPut(t, s, "a", "one")
	if same.ETag == first.ETag {
		t.Fatal("two PUTs have one version")
	}
	path := filepath.Join(s.root, "a")
	if err := os.WriteFile(path, []byte("two"), 0o600); err != nil { // in place: the xattr stays
		t.Fatal(err)
	}
	_, in, err := s.Get(t.Context(), "a", store.Range{})
	if err != nil || in.ETag != hashTag([]byte("two")) {
		t.Fatalf("edited in place: ETag %s, %v", in.ETag, err)
	}
	if _, err := s.Put(t.Context(), "a", nil, store.Condition{IfMatch: same.ETag}); !errors.Is(err, store.ErrPrecondition) {
		t.Fatalf("the old version still matches: %v", err)
	}
	if _, err := s.Put(t.Context(), "a", []byte("three"), store.Condition{IfMatch: in.ETag}); err != nil {
		t.Fatal(err)
	}
	big := make([]byte, hashAtMost+1)
	if err := os.WriteFile(filepath.Join(s.root, "big"), big, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, in, err := s.Get(t.Context(), "big", store.Range{Len: 10}); err != nil || in.ETag != "" {
		t.Errorf("a ranged GET hashed all of a big object: %q, %v", in.ETag, err)
	}
	if _, in, err := s.Get(t.Context(), "big", store.Range{}); err != nil || in.ETag != hashTag(big) {
		t.Errorf("a whole GET: %q, %v", in.ETag, err)
	}
	if _, err := s.Put(t.Context(), "big", nil, store.Condition{IfMatch: hashTag(big)}); err != nil {
		t.Error(err)
	}
}

// TestLockHeldElsewhere: a process that was stopped while it held the lock, maybe between a comparison and a rename, can't hang
// us; and nothing is changed below it.
func TestLockHeldElsewhere(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	in := mustPut(t, s, "a", "one")
	f := flocked(t, s)
	put := func(c store.Condition) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := s.Put(ctx, "a", []byte("two"), c)
			return err
		}
	}
	for name, change := range map[string]func(context.Context) error{
		"compare and swap": put(store.Condition{IfMatch: in.ETag}),
		"put":              put(store.Condition{}),
		"delete":           func(ctx context.Context) error { return s.Delete(ctx, "a") },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- change(ctx) }()
		for len(s.lock.slot) == 0 && len(ended) == 0 { // until it waits for the lock
			time.Sleep(time.Millisecond)
		}
		cancel()
		err := <-ended
		if !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, context.Canceled) ||
			!strings.Contains(err.Error(), lockFile+" is held by another process") {
			t.Fatalf("%s: %v", name, err)
		}
		if got := mustGet(t, s, "a"); got != "one" {
			t.Fatalf("%s: the object became %q", name, got)
		}
	}
	if _, err := s.Put(t.Context(), "b", nil, store.Condition{IfAbsent: true}); err != nil {
		t.Errorf("creating needs no lock: %v", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), "a", []byte("two"), store.Condition{IfMatch: in.ETag}); err != nil {
		t.Fatal(err)
	}
}

// flocked opens the lock file of s, made if missing, and locks it as another process does.
func flocked(t *testing.T, s *Store) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(s.root, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestLockFileIsReplaced: somebody removes the lock file while we wait for it. What we get then excludes nobody.
func TestLockFileIsReplaced(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	mustPut(t, s, "a", "one")
	old := flocked(t, s)
	if err := s.lock.open(); err != nil { // as the waiting one has done
		t.Fatal(err)
	}
	if err := os.Remove(old.Name()); err != nil {
		t.Fatal(err)
	}
	flocked(t, s)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := s.lock.poll(ctx); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("two hold the lock: %v", err)
	}
}

// endsAfter is a context that ends when it was looked at n times.
type endsAfter struct {
	context.Context
	n int
}

func (c *endsAfter) Err() error {
	if c.n--; c.n < 0 {
		return context.Canceled
	}
	return nil
}

// TestPutWithoutItsCaller: once its context has ended, a PUT does not make visible what it read, since the memory of the body may
// be somebody else's by then.
func TestPutWithoutItsCaller(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	mustPut(t, s, "a/b", "one")
	for _, c := range []store.Condition{{}, {IfAbsent: true}} {
		if _, err := s.Put(&endsAfter{t.Context(), 1}, "a/c", []byte("two"), c); !errors.Is(err, context.Canceled) {
			t.Errorf("put %+v: %v", c, err)
		}
		if _, _, err := s.Get(t.Context(), "a/c", store.Range{}); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("put %+v is visible: %v", c, err)
		}
	}
}

func TestFolderRuleIsStrict(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	mustPut(t, s, "a/b", "x")
	mustPut(t, s, "c", "x")
	for _, c := range []store.Condition{{}, {IfAbsent: true}} {
		for _, key := range []string{"a", "c/d", "a/b/c"} {
			if _, err := s.Put(t.Context(), key, nil, c); !errors.Is(err, store.ErrBadKey) {
				t.Errorf("put %s: %v", key, err)
			}
		}
	}
	if _, _, err := s.Get(t.Context(), "a", store.Range{}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get of a folder: %v", err)
	}
	if err := s.Delete(t.Context(), "a"); err != nil || mustGet(t, s, "a/b") != "x" {
		t.Errorf("delete of a folder: %v", err)
	}
}
