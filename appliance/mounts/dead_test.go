package mounts

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"glidefs-appliance/frontends/frontendtest"
	"glidefs-appliance/frontends/fuse"

	"golang.org/x/sys/unix"
)

// TestMain also is the daemon that tests kill: it serves the disk at the file of its first argument in a folder.
func TestMain(m *testing.M) {
	dir := os.Getenv("GLIDEFS_MOUNTS_DAEMON")
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := daemon(dir, dir+".disk"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func daemon(dir, disk string) error {
	s, err := fuse.Mount(dir, fuse.Options{})
	if err != nil {
		return err
	}
	d, err := frontendtest.OpenFileDisk(disk, 64*mib, 4096)
	if err != nil {
		return err
	}
	if _, err := s.Add("disk", d, false); err != nil {
		return err
	}
	fmt.Println("ready")
	s.Wait()
	return nil
}

func startDaemon(t *testing.T, dir string) (kill func()) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "GLIDEFS_MOUNTS_DAEMON="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatal(line, err)
	}
	kill = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	t.Cleanup(func() {
		kill()
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	})
	return kill
}

func TestCleanDead(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "fuse")
	file := filepath.Join(dir, "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	kill := startDaemon(t, dir)
	mnt := mountFS(t, file, "ext4")
	f, err := os.Create(filepath.Join(mnt, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := CleanDead(dir); len(got) != 0 || err != nil {
		t.Fatalf("cleaned a living daemon's mounts: %v, %v", got, err)
	}

	kill()
	if got, err := CleanDead(dir); err != nil || len(got) != 1 || got[0] != mnt {
		t.Errorf("CleanDead: %v, %v; want %s", got, err, mnt)
	}
	for _, d := range []string{dir, mnt} {
		if names, err := os.ReadDir(d); err != nil || len(names) != 0 {
			t.Errorf("%s: %v, %v; want it empty", d, names, err)
		}
	}
	f.Close()
	eventually(t, "the loop device is gone", func() bool { devs, _ := LoopsOf(file); return len(devs) == 0 })

	startDaemon(t, dir)
	l := attach(t, file, LoopOptions{Sector: 4096})
	if _, err := Mount(t.Context(), l.Device(), mnt, false); err != nil {
		t.Errorf("mount after the restart: %v", err)
	}
	if err := errors.Join(l.Close(), Unmount(t.Context(), mnt)); err != nil {
		t.Error(err)
	}
}

// TestCleanDeadAfterRestart: the new daemon's mount hides the dead one's, which the loop device still belongs to.
func TestCleanDeadAfterRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fuse")
	file := filepath.Join(dir, "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	kill := startDaemon(t, dir)
	mnt := mountFS(t, file, "ext4")
	kill()
	if dead, err := fuse.CleanDead(dir); !dead || err != nil {
		t.Fatal(dead, err)
	}
	startDaemon(t, dir)
	l := attach(t, file, LoopOptions{Sector: 4096})
	if got, err := CleanDead(dir); err != nil || len(got) != 1 || got[0] != mnt {
		t.Errorf("CleanDead: %v, %v; want %s", got, err, mnt)
	}
	if devs, err := LoopsOf(file); err != nil || len(devs) != 1 || devs[0] != l.Device() {
		t.Errorf("loop devices left: %v, %v; want %s", devs, err, l.Device())
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the new daemon's file: %v", err)
	}
	l.Close()
}
