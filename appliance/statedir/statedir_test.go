package statedir

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func mustOpen(t *testing.T, dir string) *State {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestIdentityStays(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := mustOpen(t, dir)
	if !Locked(s.Dir) {
		t.Error("an open state dir is not locked")
	}
	id := s.ID
	s.Close()
	if Locked(s.Dir) {
		t.Error("a closed state dir is locked")
	}
	s = mustOpen(t, dir)
	defer s.Close()
	if s.ID != id || id == [16]byte{} {
		t.Errorf("id %x, then %x", id, s.ID)
	}
	if _, err := Open(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("second open: %v", err)
	}
}

func TestMovedAndCopied(t *testing.T) {
	root := t.TempDir()
	a, b, c := root+"/a", root+"/b", root+"/c"
	mustOpen(t, a).Close()
	if err := os.Rename(a, b); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, b).Close()
	if out, err := exec.Command("cp", "-a", b, c).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	_, err := Open(c)
	if !errors.Is(err, ErrCopied) || !strings.Contains(err.Error(), b) {
		t.Errorf("copy: %v", err)
	}
	if err := os.Remove(c + "/host"); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, c).Close()
}

func TestOtherMachine(t *testing.T) {
	for name, tc := range map[string]struct {
		was, now place
		copied   bool
	}{
		"same":             {place{"m", "h", "/s", 1}, place{"m", "h", "/s", 1}, false},
		"renamed host":     {place{"m", "h", "/s", 1}, place{"m", "g", "/s", 1}, false},
		"moved":            {place{"m", "h", "/s", 1}, place{"m", "h", "/t", 1}, false},
		"restored":         {place{"m", "h", "/s", 1}, place{"m", "h", "/s", 2}, false},
		"copied":           {place{"m", "h", "/s", 1}, place{"m", "h", "/t", 2}, true},
		"other machine":    {place{"m", "h", "/s", 1}, place{"n", "h", "/s", 1}, true},
		"no machine id":    {place{"", "h", "/s", 1}, place{"n", "h", "/s", 2}, false},
		"no id and copied": {place{"", "h", "/s", 1}, place{"", "h", "/t", 2}, true},
	} {
		if got := tc.now.copyOf(tc.was); got != tc.copied {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestServe(t *testing.T) {
	root := t.TempDir()
	s := mustOpen(t, root+"/state")
	defer s.Close()
	def := "file://" + root + "/store"
	if url, err := s.Serve("", def); err != nil || url != def {
		t.Fatalf("default: %s, %v", url, err)
	}
	if err := s.Record(def); err != nil {
		t.Fatal(err)
	}
	if url, err := s.Serve(def+"/", "file:///other"); err != nil || url != def+"/" {
		t.Errorf("the same store, written differently: %s, %v", url, err)
	}
	if url, err := s.Serve("", "file:///other"); err != nil || url != def {
		t.Errorf("left out: %s, %v", url, err)
	}
	if _, err := s.Serve("mem://x", ""); !errors.Is(err, ErrStore) || !strings.Contains(err.Error(), "--state-dir") {
		t.Errorf("another store: %v", err)
	}
}

func TestStoreBelowStateDir(t *testing.T) {
	root := t.TempDir()
	s := mustOpen(t, root+"/state")
	defer s.Close()
	if err := os.Symlink(root+"/state", root+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{"file://" + root + "/state", "file://" + root + "/state/x/y", "file://" + root + "/other/../state/x", "file://" + root + "/link/x"} {
		if _, err := s.Serve(url, ""); err == nil {
			t.Errorf("%s is accepted", url)
		}
	}
	if _, err := s.Serve("file://"+root+"/state2", ""); err != nil {
		t.Error(err)
	}
}

func TestExports(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	defer s.Close()
	if l, err := s.Exports(); err != nil || len(l) != 0 {
		t.Fatalf("new: %v, %v", l, err)
	}
	want := []Export{
		{Name: "a", Frontend: "fuse", Attached: true, Since: time.Unix(1, 0).UTC()},
		{Name: "b", Left: Left{Owed: 4096}, Since: time.Unix(2, 0).UTC()},
	}
	if err := s.SetExports(want); err != nil {
		t.Fatal(err)
	}
	got, err := s.Exports()
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("%v\n%s", err, cmp.Diff(want, got))
	}
}

func TestDamaged(t *testing.T) {
	for _, file := range []string{"id", "host"} {
		dir := t.TempDir()
		mustOpen(t, dir).Close()
		if err := os.WriteFile(filepath.Join(dir, file), []byte("rubbish"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), file+" is damaged") {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	s := mustOpen(t, dir)
	defer s.Close()
	for path, want := range map[string]os.FileMode{dir: 0o700, s.Logs(): 0o700, dir + "/id": 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	var p place
	b, _ := os.ReadFile(dir + "/host")
	if err := json.Unmarshal(b, &p); err != nil || p.Path != dir {
		t.Errorf("%s: %v", b, err)
	}
}

// TestGone: a state dir that is no longer where it was is noticed, and what may be there now is left alone.
func TestGone(t *testing.T) {
	for name, do := range map[string]func(dir string) error{
		"deleted":      os.RemoveAll,
		"moved":        func(dir string) error { return os.Rename(dir, dir+".old") },
		"lock deleted": func(dir string) error { return os.Remove(filepath.Join(dir, "lock")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			s, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if s.Gone() {
				t.Fatal("gone at once")
			}
			if err := do(dir); err != nil {
				t.Fatal(err)
			}
			if !s.Gone() {
				t.Error("not noticed")
			}
			next, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer next.Close()
			if !s.Gone() || next.Gone() {
				t.Errorf("with another in its place: %v, that one %v", s.Gone(), next.Gone())
			}
			if err := s.SetExports([]Export{{Name: "ours"}}); !errors.Is(err, ErrGone) {
				t.Errorf("wrote into another's: %v", err)
			}
			if list, err := next.Exports(); len(list) > 0 || err != nil {
				t.Error(list, err)
			}
		})
	}
}
