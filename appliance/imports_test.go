package appliance

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "glidefs-appliance"

// source is one Go file of the repository.
type source struct {
	pkg     string // folder, from the root of the repository
	test    bool
	imports []string
	doc     bool // has a package comment
}

func sources(t *testing.T) []source {
	t.Helper()
	var list []source
	root := ".."
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		if d.IsDir() && (rel != "." && strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") {
			return fs.SkipDir
		}
		if d.IsDir() || filepath.Ext(p) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		s := source{pkg: filepath.ToSlash(filepath.Dir(rel)), test: strings.HasSuffix(p, "_test.go"), doc: f.Doc != nil}
		for _, i := range f.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, name)
		}
		list = append(list, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// may lists, for a package and those below it, which of our packages it imports. The first prefix that fits counts;
// every package may import those below itself.
var may = []struct {
	pkg string
	of  []string
}{
	{"frontends", []string{"frontends"}},
	{"backend/vfs", nil},
	{"backend/store", []string{"backend/store"}},
	{"backend/pack", nil},
	{"backend/wlog", []string{"backend/vfs"}},
	{"backend/cache", []string{"backend/vfs"}},
	{"backend/manifest", []string{"backend/pack", "backend/store"}},
	{"backend/gc", []string{"backend/manifest", "backend/pack", "backend/store"}},
	{"backend/volume", []string{"backend", "frontends"}},
	{"appliance", []string{"appliance", "backend", "frontends", "udev"}},
	{"cli", []string{"appliance"}},
}

func TestImportDirection(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue // tests may look at anything
		}
		for _, i := range s.imports {
			if to, ok := strings.CutPrefix(i, module+"/"); ok && !allowed(s.pkg, to) {
				t.Errorf("%s imports %s", s.pkg, to)
			}
		}
	}
}

func below(pkg, dir string) bool { return pkg == dir || strings.HasPrefix(pkg, dir+"/") }

func allowed(from, to string) bool {
	if below(to, from) {
		return true
	}
	for _, m := range may {
		if below(from, m.pkg) {
			return slices.ContainsFunc(m.of, func(dir string) bool { return below(to, dir) })
		}
	}
	return false
}

// What several packages may import: the Go project's own extensions, and the hash by which packs and manifests name and
// check their objects.
var common = []string{"golang.org/x/", "github.com/zeebo/blake3"}

// TestOneImporter: each third-party module has one package that knows it.
func TestOneImporter(t *testing.T) {
	by := map[string][]string{}
	for _, s := range sources(t) {
		for _, i := range s.imports {
			m := moduleOf(i)
			if s.test || m == "" || slices.ContainsFunc(common, func(c string) bool { return strings.HasPrefix(i, c) }) {
				continue
			}
			if !slices.Contains(by[m], s.pkg) {
				by[m] = append(by[m], s.pkg)
			}
		}
	}
	for m, pkgs := range by {
		slices.Sort(pkgs) // a package comes before those below it, which count as it
		for _, p := range pkgs[1:] {
			if !below(p, pkgs[0]) {
				t.Errorf("%s is imported by %v", m, pkgs)
			}
		}
	}
}

// moduleOf names the required module that holds a package, empty for the standard library and us.
func moduleOf(pkg string) string {
	if !strings.Contains(strings.Split(pkg, "/")[0], ".") {
		return ""
	}
	parts := strings.Split(pkg, "/")
	return path.Join(parts[:min(len(parts), 3)]...)
}

// TestDiskOnlyThroughVFS: the engine reaches the local disk through backend/vfs, and the store's directory through
// backend/store/dir, and nowhere else.
func TestDiskOnlyThroughVFS(t *testing.T) {
	for _, s := range sources(t) {
		exempt := s.test || !below(s.pkg, "backend") || below(s.pkg, "backend/vfs") || below(s.pkg, "backend/store")
		if !exempt && slices.Contains(s.imports, "os") {
			t.Errorf("%s imports os", s.pkg)
		}
	}
}

func TestPackageComments(t *testing.T) {
	doc := map[string]int{}
	for _, s := range sources(t) {
		if !s.test {
			doc[s.pkg] += map[bool]int{true: 1}[s.doc]
		}
	}
	for pkg, n := range doc {
		if n != 1 {
			t.Errorf("%s has %d package comments", pkg, n)
		}
	}
}

// TestLayout: every folder is one that the layout knows.
func TestLayout(t *testing.T) {
	known := []string{"appliance", "backend", "cli", "docs", "frontends", "systemd", "udev", "vagrant", "bin"}
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && e.Name()[0] != '.' && !slices.Contains(known, e.Name()) {
			t.Errorf("folder %s", e.Name())
		}
	}
}
