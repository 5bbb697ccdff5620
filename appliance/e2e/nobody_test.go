package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNobody: without root, in a mount namespace of its own, a disk is a file through fusermount3; mount says what it
// needs root for.
func TestNobody(t *testing.T) {
	t.Parallel()
	store := folder(t)
	m := newMachine(t, store, `upload_age = "1h"`)
	must(t, os.Chmod(store.dir, 0o777))
	must(t, os.Chmod(m.dir, 0o777))
	inside := namespace(t)
	m.wrap = append(inside, "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")

	path := m.attach("d", "--size", "64M", "--frontend", "fuse")
	file := filepath.Join(m.dir, "content")
	content := make([]byte, 1<<20)
	for i := range len(content) / sector {
		stamp(content[i*sector:], i, 1)
	}
	must(t, os.WriteFile(file, content, 0o644))
	copyTo := func(from, to string) {
		t.Helper()
		args := append(m.wrap, "dd", "if="+from, "of="+to, "bs=1M", "count=1", "conv=notrunc,fsync")
		mustRun(t, args[0], args[1:]...)
	}
	copyTo(file, path)
	m.fails(exitFailed, []string{"mount", "other", m.mountpoint()}, "root", "attach --frontend fuse")
	m.ok("detach", "d")
	eventually(t, "the daemon ends", m.gone)

	copyTo(m.attach("d"), file+".back")
	m.ok("detach", "d")
	back, err := os.ReadFile(file + ".back")
	if err != nil || string(back) != string(content) {
		t.Errorf("%d bytes come back, %v, or others", len(back), err)
	}
}

// namespace makes a mount namespace with a /dev/fuse that everybody may use, until the test ends, and returns what
// runs a command in it.
func namespace(t *testing.T) (wrap []string) {
	t.Helper()
	node := filepath.Join(scratch(t), "fuse")
	mustRun(t, "mknod", "-m", "666", node, "c", "10", "229")
	cmd := exec.Command("unshare", "-m", "sh", "-c", fmt.Sprintf("mount --bind %s /dev/fuse && echo ready && exec cat", node))
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close() // ends it
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); strings.TrimSpace(line) != "ready" {
		t.Fatalf("no mount namespace: %q, %v", line, err)
	}
	return []string{"nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", cmd.Process.Pid)}
}
