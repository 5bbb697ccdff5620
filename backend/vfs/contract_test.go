package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"
)

// TestContract holds every implementation and the decorator to what FS and File promise.
func TestContract(t *testing.T) {
	t.Run("OS", func(t *testing.T) { contract(t, func(t *testing.T) (FS, string) { return OS(), t.TempDir() }) })
	t.Run("Crash", func(t *testing.T) { contract(t, newCrashDir) })
	t.Run("Killed", func(t *testing.T) {
		contract(t, func(t *testing.T) (FS, string) {
			fsys, dir := newCrashDir(t)
			return fsys.(*Crash).Kill(), dir
		})
	})
	t.Run("Fault", func(t *testing.T) {
		contract(t, func(t *testing.T) (FS, string) { return NewFault(OS()), t.TempDir() })
	})
}

func newCrashDir(t *testing.T) (FS, string) {
	c := NewCrash()
	must(t, c.MkdirAll("/state/dir"))
	return c, "/state/dir"
}

func contract(t *testing.T, fresh func(t *testing.T) (FS, string)) {
	for name, test := range map[string]func(t *testing.T, fsys FS, dir string){
		"files": contractFiles, "sizes": contractSizes, "names": contractNames, "folders": contractFolders,
		"locks": contractLocks, "whole": contractWhole, "unlinked": contractUnlinked,
	} {
		t.Run(name, func(t *testing.T) {
			fsys, dir := fresh(t)
			test(t, fsys, dir)
		})
	}
}

func contractFiles(t *testing.T, fsys FS, dir string) {
	name := filepath.Join(dir, "f")
	f := create(t, fsys, name)
	data := pattern(10000, 1)
	n, err := f.WriteAt(data, 3000)
	if n != len(data) || err != nil {
		t.Fatalf("WriteAt = %d, %v", n, err)
	}
	f.WriteBack(0, 4096)
	must(t, f.Sync())
	must(t, f.Close())

	f, err = fsys.Open(name)
	must(t, err)
	defer f.Close()
	want := append(make([]byte, 3000), data...)
	for _, r := range [][2]int{{0, 13000}, {0, 1}, {2999, 2}, {4095, 4098}, {12999, 1}} {
		got := make([]byte, r[1])
		n, err := f.ReadAt(got, int64(r[0]))
		if n != len(got) || err != nil || !bytes.Equal(got, want[r[0]:r[0]+r[1]]) {
			t.Errorf("ReadAt %v = %d, %v or wrong bytes", r, n, err)
		}
	}
	got := make([]byte, 100)
	if n, err := f.ReadAt(got, 12990); n != 10 || err != io.EOF || !bytes.Equal(got[:10], want[12990:]) {
		t.Errorf("ReadAt over the end = %d, %v", n, err)
	}
	if n, err := f.ReadAt(got, 20000); n != 0 || err != io.EOF {
		t.Errorf("ReadAt beyond the end = %d, %v", n, err)
	}
}

func contractSizes(t *testing.T, fsys FS, dir string) {
	f := create(t, fsys, filepath.Join(dir, "f"))
	defer f.Close()
	size := func(want int64) {
		t.Helper()
		if got, err := f.Size(); got != want || err != nil {
			t.Fatalf("Size = %d, %v, want %d", got, err, want)
		}
	}
	size(0)
	must(t, f.Allocate(0, 8192, true))
	size(0)
	must(t, f.Allocate(4096, 4096, false))
	size(8192)
	must(t, f.Allocate(0, 4096, false))
	size(8192)
	write(t, f, pattern(8192, 2), 0)
	must(t, f.Truncate(5000))
	size(5000)
	must(t, f.Truncate(9000))
	size(9000)
	got := make([]byte, 9000)
	if _, err := f.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	want := append(pattern(8192, 2)[:5000], make([]byte, 4000)...)
	if !bytes.Equal(got, want) {
		t.Error("cut off bytes came back")
	}
}

func contractNames(t *testing.T, fsys FS, dir string) {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	_, err := fsys.Open(a)
	wantErr(t, err, fs.ErrNotExist)
	wantErr(t, fsys.Remove(a), fs.ErrNotExist)
	wantErr(t, fsys.Rename(a, b), fs.ErrNotExist)
	_, err = fsys.Create(filepath.Join(dir, "none", "a"))
	wantErr(t, err, fs.ErrNotExist)

	f := create(t, fsys, a)
	write(t, f, []byte("a"), 0)
	must(t, f.Close())
	must(t, create(t, fsys, b).Close())
	_, err = fsys.Create(a)
	wantErr(t, err, fs.ErrExist)
	wantList(t, fsys, dir, "a", "b")

	must(t, fsys.Rename(a, b))
	wantList(t, fsys, dir, "b")
	if data, err := ReadFile(fsys, b); string(data) != "a" || err != nil {
		t.Errorf("renamed file = %q, %v", data, err)
	}
	must(t, fsys.Remove(b))
	wantList(t, fsys, dir)
	must(t, fsys.SyncDir(dir))
}

func contractFolders(t *testing.T, fsys FS, dir string) {
	deep := filepath.Join(dir, "x", "y")
	_, err := fsys.List(deep)
	wantErr(t, err, fs.ErrNotExist)
	wantErr(t, fsys.SyncDir(deep), fs.ErrNotExist)
	must(t, fsys.MkdirAll(deep))
	must(t, fsys.MkdirAll(deep))
	must(t, create(t, fsys, filepath.Join(deep, "f")).Close())
	if fsys.Remove(deep) == nil {
		t.Error("removed a folder that is not empty")
	}
	if fsys.MkdirAll(filepath.Join(deep, "f")) == nil {
		t.Error("made a folder where a file is")
	}
	must(t, fsys.Rename(filepath.Join(dir, "x"), filepath.Join(dir, "z")))
	wantList(t, fsys, filepath.Join(dir, "z", "y"), "f")
	must(t, fsys.RemoveAll(filepath.Join(dir, "z")))
	must(t, fsys.RemoveAll(filepath.Join(dir, "z")))
	wantList(t, fsys, dir)
	total, free, err := fsys.Usage(dir)
	if err != nil || total <= 0 || free <= 0 || free > total {
		t.Errorf("Usage = %d, %d, %v", total, free, err)
	}
	_, _, err = fsys.Usage(deep)
	wantErr(t, err, fs.ErrNotExist)
}

func contractLocks(t *testing.T, fsys FS, dir string) {
	name := filepath.Join(dir, "lock")
	l, err := fsys.Lock(name)
	must(t, err)
	_, err = fsys.Lock(name)
	wantErr(t, err, ErrLocked)
	other, err := fsys.Lock(name + "2")
	must(t, err)
	must(t, other.Close())
	must(t, l.Close())
	l, err = fsys.Lock(name)
	must(t, err)
	must(t, l.Close())
	wantList(t, fsys, dir, "lock", "lock2")
}

func contractWhole(t *testing.T, fsys FS, dir string) {
	name := filepath.Join(dir, "head")
	left := create(t, fsys, name+newSuffix)
	write(t, left, pattern(9000, 3), 0)
	must(t, left.Close())
	for _, data := range []string{"one", "a longer two", ""} {
		must(t, WriteFile(fsys, name, []byte(data)))
		if got, err := ReadFile(fsys, name); string(got) != data || err != nil {
			t.Errorf("ReadFile = %q, %v, want %q", got, err, data)
		}
	}
	wantList(t, fsys, dir, "head")
	_, err := ReadFile(fsys, name+"2")
	wantErr(t, err, fs.ErrNotExist)
}

func contractUnlinked(t *testing.T, fsys FS, dir string) {
	f := create(t, fsys, filepath.Join(dir, "f"))
	defer f.Close()
	must(t, fsys.Remove(filepath.Join(dir, "f")))
	write(t, f, []byte("still here"), 0)
	got := make([]byte, 10)
	if _, err := f.ReadAt(got, 0); err != nil || string(got) != "still here" {
		t.Errorf("read of an unlinked file = %q, %v", got, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error = %v, want %v", err, want)
	}
}

func wantList(t *testing.T, fsys FS, dir string, want ...string) {
	t.Helper()
	if got, err := fsys.List(dir); !slices.Equal(got, want) || err != nil {
		t.Errorf("List = %q, %v, want %q", got, err, want)
	}
}

func create(t *testing.T, fsys FS, name string) File {
	t.Helper()
	f, err := fsys.Create(name)
	must(t, err)
	return f
}

func write(t *testing.T, f File, data []byte, off int64) {
	t.Helper()
	if _, err := f.WriteAt(data, off); err != nil {
		t.Fatal(err)
	}
}

func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = seed + byte(i/7)
	}
	return p
}
