package fuse

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"glidefs-appliance/frontends/frontendtest"

	"golang.org/x/sys/unix"
)

// A test that needs another process runs this binary again with one of these as GLIDEFS_FUSE_CHILD.
var children = map[string]func(dir string) error{
	"serve":  serveUntilKilled,
	"nobody": mountAsNobody,
	"check":  checkDevice,
	"map":    writeMapped,
}

func TestMain(m *testing.M) {
	child, arg, _ := strings.Cut(os.Getenv("GLIDEFS_FUSE_CHILD"), " ")
	if child == "" {
		os.Exit(m.Run())
	}
	if err := children[child](arg); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func child(name, arg string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "GLIDEFS_FUSE_CHILD="+name+" "+arg)
	cmd.Stderr = os.Stderr
	return cmd
}

func serveUntilKilled(dir string) error {
	s, err := Mount(dir, Options{})
	if err != nil {
		return err
	}
	if _, err := s.Add("a", frontendtest.NewMemDisk(mib, 4096), false); err != nil {
		return err
	}
	fmt.Println("ready")
	s.Wait()
	return nil
}

// serve starts a daemon with its mount at dir.
func serve(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := child("serve", dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatal(line, err)
	}
	return cmd
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

func TestCleanDead(t *testing.T) {
	dir := t.TempDir()
	cmd := serve(t, dir)
	f := openFile(t, filepath.Join(dir, "a"), os.O_RDWR)
	if dead, err := CleanDead(dir); dead || err != nil {
		t.Fatalf("CleanDead of a living mount: %v, %v", dead, err)
	}
	kill(t, cmd)
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("write to a dead mount succeeded")
	}
	if dead, err := CleanDead(dir); !dead || err != nil {
		t.Errorf("CleanDead: %v, %v; want true", dead, err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("after CleanDead: %v, %v", names, err)
	}
	if dead, err := CleanDead(dir); dead || err != nil {
		t.Errorf("CleanDead of a plain folder: %v, %v", dead, err)
	}
}

// TestCleanDeadTogether: between the look at a dead mount and its end somebody else took it away, and mounted anew.
func TestCleanDeadTogether(t *testing.T) {
	dir := t.TempDir()
	kill(t, serve(t, dir))
	root, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	if dead, err := CleanDead(dir); !dead || err != nil {
		t.Fatal(dead, err)
	}
	serve(t, dir)
	if err := detachRoot(root, dir); err != nil {
		t.Errorf("it is gone already: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "a")); err != nil {
		t.Errorf("the new mount: %v", err)
	}
}

func TestDeviceMissing(t *testing.T) {
	err := checkDevice(filepath.Join(t.TempDir(), "fuse"))
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "modprobe fuse") {
		t.Errorf("%v; want what to do", err)
	}
}

// TestDeviceNotAccessible: the error names the mode of the device and what to do.
func TestDeviceNotAccessible(t *testing.T) {
	dir := openDir(t)
	dev := filepath.Join(dir, "fuse")
	if err := os.WriteFile(dev, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := child("check", dev)
	cmd.Path = copyExecutable(t, dir, cmd.Path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.Output()
	if err == nil || !strings.Contains(string(out), "has mode 0600 and belongs to uid 0") || !strings.Contains(string(out), "chmod 0666") {
		t.Errorf("%v, %q; want the mode and what to do", err, out)
	}
}

// openDir is a folder that nobody can reach, unlike t.TempDir.
func openDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "glidefs-fuse")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func copyExecutable(t *testing.T, dir, exe string) string {
	t.Helper()
	in, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	to := filepath.Join(dir, "test")
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
	return to
}

func mountAsNobody(dir string) error {
	s, err := Mount(dir, Options{})
	if err != nil {
		return err
	}
	path, err := s.Add("a", frontendtest.NewMemDisk(mib, 4096), false)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte("x"), 0); !errors.Is(err, unix.EPERM) { // O_TRUNC
		return fmt.Errorf("open with O_TRUNC: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte("hello"), 4094)
	if err := errors.Join(err, f.Sync(), f.Close(), s.Unmount()); err != nil {
		return err
	}
	fmt.Println("uid", os.Geteuid())
	return nil
}

// TestNotRoot mounts through fusermount3 as nobody, in a mount namespace of its own with a /dev/fuse for everyone.
func TestNotRoot(t *testing.T) {
	dir := openDir(t)
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(mnt, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	c := child("nobody", mnt)
	exe := copyExecutable(t, dir, c.Path)
	const script = `set -e
mount --make-rprivate /
mknod -m 0666 "$1/fuse" c 10 229
mount --bind "$1/fuse" /dev/fuse
exec setpriv --reuid=65534 --regid=65534 --clear-groups "$2"`
	cmd := exec.Command("unshare", "-m", "sh", "-c", script, "sh", dir, exe)
	cmd.Env, cmd.Stderr = c.Env, os.Stderr
	out, err := cmd.Output()
	if err != nil || string(out) != "uid 65534\n" {
		t.Errorf("%v, %q", err, out)
	}
}

// TestChildrenLackTheDevice: a process that we start cannot keep the connection after we are dead.
func TestChildrenLackTheDevice(t *testing.T) {
	mount(t, Options{})
	out, err := exec.Command("ls", "-l", "/proc/self/fd").CombinedOutput()
	if err != nil || strings.Contains(string(out), devFuse) {
		t.Errorf("%v\n%s", err, out)
	}
}
