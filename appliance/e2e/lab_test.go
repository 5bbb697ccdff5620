//go:build lab

package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"glidefs-appliance/appliance/api"

	"golang.org/x/sys/unix"
)

// These tests are for the guests of vagrant/lab, with the tag lab. The test binary and the program are built outside:
//
//	make build
//	CGO_ENABLED=0 go test -c -tags lab -o /tmp/lab.test ./appliance/e2e
//	vagrant/lab run --kernel 6.17 -- env GLIDEFS_LAB=zerocopy GLIDEFS_PROGRAM=$PWD/bin/glidefs-appliance \
//		TMPDIR=/var/lib/lab /tmp/lab.test -test.v -test.run Lab
//
// GLIDEFS_LAB names the best that the kernel offers: fuse, usercopy or zerocopy; anything else found there is an error.

const labEnv = "GLIDEFS_LAB"

// way is a frontend that this kernel can be made to choose.
type way struct {
	frontend string
	why      string // part of the reason that status gives
	env      []string
}

func (w way) block() bool { return w.frontend != "fuse" }

// ways lists them, the one chosen unasked first.
func ways(t *testing.T) []way {
	t.Helper()
	switch os.Getenv(labEnv) {
	case "fuse":
		return []way{{frontend: "fuse", why: "no ublk: /dev/ublk-control is missing"}}
	case "usercopy":
		return []way{{frontend: "ublk-copy", why: "lacks AUTO_BUF_REG"}}
	case "zerocopy":
		return []way{
			{frontend: "ublk-zc", why: "the kernel offers zero copy", env: []string{"GLIDEFS_FORCE_USER_COPY="}}, // counts as unset
			{frontend: "ublk-copy", why: "GLIDEFS_FORCE_USER_COPY is set", env: []string{"GLIDEFS_FORCE_USER_COPY=1"}},
		}
	}
	t.Fatalf("%s=%s: want fuse, usercopy or zerocopy", labEnv, os.Getenv(labEnv))
	return nil
}

// eachWay runs a test with every frontend that this kernel can be made to choose.
func eachWay(t *testing.T, do func(t *testing.T, w way)) {
	for _, w := range ways(t) {
		t.Run(w.frontend, func(t *testing.T) { do(t, w) })
	}
}

// eachBlockWay leaves FUSE out.
func eachBlockWay(t *testing.T, do func(t *testing.T, w way)) {
	eachWay(t, func(t *testing.T, w way) {
		if w.block() {
			do(t, w)
		}
	})
}

// machine is a new one that chooses w.
func (w way) machine(t *testing.T, store home, settings ...string) *machine {
	t.Helper()
	return w.prepare(newMachine(t, store, settings...))
}

func (w way) prepare(m *machine) *machine {
	m.env = append(m.env, w.env...)
	m.t.Cleanup(func() { letGo(m) })
	return m
}

// letGo takes the disks of a test that failed away by force: a block device that waits for its daemon would hold up
// the clean-up, and every test after it.
func letGo(m *machine) {
	if !m.t.Failed() {
		return
	}
	r := m.run("--json", "status")
	m.t.Logf("status:\n%s%s", r.stdout, r.stderr)
	for _, name := range diskNames(r.stdout) {
		m.run("detach", "--force", name)
	}
}

// check that the disk is served as w says, and that status tells why.
func (w way) check(m *machine, name string) {
	m.t.Helper()
	var d api.Disk
	eventually(m.t, "the disk is attached", func() bool { d = m.status(name); return d.Attached })
	if d.Frontend != w.frontend || !strings.Contains(d.Why, w.why) {
		m.t.Errorf("frontend %s because %q, want %s because %q", d.Frontend, d.Why, w.frontend, w.why)
	}
	if w.block() != strings.HasPrefix(d.Device, "/dev/ublkb") {
		m.t.Errorf("frontend %s and device %s", d.Frontend, d.Device)
	}
}

// killDaemon kills the daemon only, and returns when its supervisor has started another.
func (m *machine) killDaemon() {
	m.t.Helper()
	old := m.daemon()
	must(m.t, unix.Kill(old, unix.SIGKILL))
	eventually(m.t, "another daemon runs", func() bool {
		_, pid := m.processes()
		return pid != 0 && pid != old
	})
}

// written counts the writes that a block device has completed.
func written(t testing.TB, device string) int {
	t.Helper()
	b, err := os.ReadFile("/sys/class/block/" + filepath.Base(device) + "/stat")
	must(t, err)
	n, err := strconv.Atoi(strings.Fields(string(b))[4])
	must(t, err)
	return n
}

// fsck checks what a file system's checker says of a disk that is attached for it.
func (m *machine) fsck(name, kind string) {
	m.t.Helper()
	check := map[string][]string{"ext4": {"fsck.ext4", "-fn"}, "xfs": {"xfs_repair", "-n"}}[kind]
	path := m.attach(name)
	if kind == "xfs" && !strings.HasPrefix(path, "/dev/") {
		check = append(check, "-f")
	}
	mustRun(m.t, check[0], append(check[1:], path)...)
	m.ok("detach", name)
}

// job is a fio that writes blocks with checksums and verifies them when it is done; it must not see one error.
type job struct {
	*exec.Cmd
	t    *testing.T
	out  strings.Builder
	done chan error
}

// verifying writes size bytes from offset of a file or device.
func verifying(t *testing.T, path string, offset, size int64) *job {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience)
	t.Cleanup(cancel)
	j := &job{t: t, done: make(chan error, 1), Cmd: exec.CommandContext(ctx, "fio",
		"--name=j", "--filename="+path, fmt.Sprint("--offset=", offset), fmt.Sprint("--size=", size), "--rw=randwrite", "--bs=4k",
		"--ioengine=libaio", "--iodepth=8", "--direct=1", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--thread")}
	j.Dir = scratch(t)
	j.Stdout, j.Stderr = &j.out, &j.out
	must(t, j.Start())
	go func() { j.done <- j.Wait() }()
	return j
}

// finish waits for its end, which must be a good one.
func (j *job) finish() {
	j.t.Helper()
	if err := <-j.done; err != nil {
		j.t.Fatalf("fio: %v:\n%s", err, j.out.String())
	}
}

// over tells whether it has ended.
func (j *job) over() bool { return len(j.done) > 0 }

// diskSum is the checksum of all of a disk.
func diskSum(t testing.TB, path string, size int64) string {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	must(t, err)
	defer f.Close()
	h, p := sha256.New(), aligned(1<<20)
	for off := int64(0); off < size; off += int64(len(p)) {
		n := min(int64(len(p)), size-off)
		if _, err := f.ReadAt(p[:n], off); err != nil {
			t.Fatal(err)
		}
		h.Write(p[:n])
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// has tells whether a line of a file has all these words.
func has(t testing.TB, path string, words ...string) bool {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if !slices.ContainsFunc(words, func(w string) bool { return !slices.Contains(f, w) }) {
			return true
		}
	}
	return false
}

// serveHTTP serves on an address of this machine only, until the test ends.
func serveHTTP(t *testing.T, do http.HandlerFunc) (address string) {
	t.Helper()
	s := httptest.NewServer(do)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}
