package e2e

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFileSystems: a source tree goes through each file system into the store, and comes out on another machine.
func TestFileSystems(t *testing.T) {
	t.Parallel()
	tree := sourceTree(t)
	want := checksums(t, tree)
	for kind, check := range map[string][]string{
		"ext4":  {"fsck.ext4", "-fn"},
		"xfs":   {"xfs_repair", "-n", "-f"},
		"btrfs": {"btrfs", "check"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			store := folder(t)
			m := newMachine(t, store, `upload_age = "300ms"`)
			mnt := m.mountpoint()
			m.ok("mount", "d", mnt, "--size", "512M", "--fs", kind)
			mustRun(t, "cp", "-a", tree, mnt+"/tree")
			syncFS(t, mnt)
			m.ok("umount", mnt)
			mustRun(t, check[0], append(check[1:], m.attach("d"))...)
			m.ok("detach", "d")

			other := newMachine(t, store)
			mnt = other.mountpoint()
			other.ok("mount", "d", mnt)
			sameTree(t, checksums(t, mnt+"/tree"), want)
			other.ok("umount", mnt)
		})
	}
}

// TestExt4Killed: everything dies under a mounted file system, again and again. It mounts again, what had an fsync is
// there, and fsck finds nothing. In the end the machine is lost, and the same goes for what a sync had sent to the store.
func TestExt4Killed(t *testing.T) {
	t.Parallel()
	store := folder(t)
	m := newMachine(t, store, `upload_age = "100ms"`)
	mnt := m.mountpoint()
	files := &files{dir: mnt, sums: map[string]string{}}
	for range rounds(t, 5) {
		m.ok("mount", "d", mnt, "--size", "256M")
		files.check(t)
		ended := make(chan error, 1)
		go func() { ended <- files.make() }()
		target := files.n.Load() + 1 + mathrand.Int64N(100)
		eventually(t, "enough files are made", func() bool { return files.n.Load() >= target })
		m.crash()
		if err := <-ended; err == nil {
			t.Error("files could be made on a dead disk")
		}
	}
	m.ok("mount", "d", mnt)
	files.check(t)
	m.ok("sync", "d")
	m.crash()
	m.forget()

	other := newMachine(t, store)
	files.dir = other.mountpoint()
	other.ok("mount", "d", files.dir, "--takeover")
	files.check(t)
	other.ok("umount", files.dir)
	mustRun(t, "fsck.ext4", "-fn", other.attach("d"))
}

// files makes files and remembers those that had an fsync.
type files struct {
	dir  string
	n    atomic.Int64
	sums map[string]string // by name; of whoever runs make or check
}

// make makes files until one fails.
func (f *files) make() error {
	for {
		name := fmt.Sprintf("f%06d", f.n.Load())
		content := make([]byte, 1+mathrand.IntN(64<<10))
		rand.Read(content)
		if err := writeSynced(filepath.Join(f.dir, name), content); err != nil {
			return err
		}
		f.sums[name] = sum(content)
		f.n.Add(1)
	}
}

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}

func (f *files) check(t *testing.T) {
	t.Helper()
	for name, want := range f.sums {
		content, err := os.ReadFile(filepath.Join(f.dir, name))
		must(t, err)
		if sum(content) != want {
			t.Fatalf("%s is not as it was at its fsync", name)
		}
	}
}

func sum(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// sourceTree is a few hundred files of the Go distribution.
func sourceTree(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(mustRun(t, "go", "env", "GOROOT")) + "/src/crypto"
}

// checksums of all files below dir, with their modes, by path.
func checksums(t *testing.T, dir string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		sums[rel] = info.Mode().String() + sum(content)
		return err
	}))
	return sums
}

func sameTree(t *testing.T, got, want map[string]string) {
	t.Helper()
	if maps.Equal(got, want) {
		return
	}
	t.Errorf("%d files, want %d", len(got), len(want))
	for name, s := range want {
		if got[name] != s {
			t.Errorf("%s differs or is missing", name)
		}
	}
}

// mustRun runs a program of this machine and returns what it prints.
func mustRun(t testing.TB, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", cmd.Args, err, out)
	}
	return string(out)
}

func syncFS(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	must(t, err)
	defer f.Close()
	must(t, unix.Syncfs(int(f.Fd())))
}
