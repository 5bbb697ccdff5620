package dir

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"glidefs-appliance/backend/store"
)

// The objects that changeForEver changes.
const powerKeys = 4

func powerKey(i int) string { return fmt.Sprintf("packs/%02x/object", i%powerKeys) }

// deletes tells whether step i deletes its object; all others put it.
func deletes(i int) bool { return i%9 == 8 }

func powerBody(i int) []byte { return []byte(strings.Repeat(fmt.Sprintf("%08d", i), 1+i*7919%9000)) }

// changeForEver puts and deletes objects, with every condition, and says before and after each step which it is.
func changeForEver(root string) error {
	s, err := Open(root, true)
	if err != nil {
		return err
	}
	ctx, tags := context.Background(), map[string]string{}
	for i := 0; ; i++ {
		key, c := powerKey(i), store.Condition{}
		switch tag := tags[key]; {
		case tag == "":
			c.IfAbsent = true
		case i%3 == 0:
			c.IfMatch = tag
		}
		fmt.Printf("begin %d\n", i)
		var in store.Info
		if deletes(i) {
			err = s.Delete(ctx, key)
		} else {
			in, err = s.Put(ctx, key, powerBody(i), c)
		}
		if err != nil {
			return err
		}
		fmt.Printf("end %d\n", i)
		tags[key] = in.ETag
	}
}

// TestPowerCut: the store lies on a file system of its own. What its disk holds at any instant, while a process is stopped in
// the middle of a PUT, is what a power cut would leave: the journal is replayed by the next mount, what was not synced is not
// there. Every acknowledged PUT and DELETE is, and every object is whole.
func TestPowerCut(t *testing.T) {
	dir, disk, root := newDisk(t)
	said := filepath.Join(dir, "said")
	child := changer(t, root, said)
	rng, steps := rand.New(rand.NewPCG(rand.Uint64(), 1)), 0
	for cut := range 12 {
		for target := steps + rng.IntN(40); steps <= target; steps = len(readSteps(t, said)) {
			time.Sleep(time.Millisecond) // a poll: the child works meanwhile
		}
		stop(t, child)
		lines := readSteps(t, said)
		image := filepath.Join(dir, fmt.Sprintf("cut%d", cut))
		copyDisk(t, disk, image)
		if err := child.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		checkCut(t, image, filepath.Join(dir, fmt.Sprintf("mnt%d", cut)), lines)
	}
	t.Logf("%d steps", steps/2)
}

// TestAcknowledgedIsOnTheDisk: so does a power cut at the very moment that a PUT or a DELETE returns.
func TestAcknowledgedIsOnTheDisk(t *testing.T) {
	dir, disk, root := newDisk(t)
	s := mustOpen(t, root)
	t.Cleanup(func() { _ = s.lock.file.Close() })
	var lines []string
	for i := range 12 {
		if deletes(i) {
			if err := s.Delete(t.Context(), powerKey(i)); err != nil {
				t.Fatal(err)
			}
		} else {
			mustPut(t, s, powerKey(i), string(powerBody(i)))
		}
		lines = append(lines, fmt.Sprintf("begin %d", i), fmt.Sprintf("end %d", i))
		image := filepath.Join(dir, fmt.Sprintf("cut%d", i))
		copyDisk(t, disk, image)
		checkCut(t, image, filepath.Join(dir, fmt.Sprintf("mnt%d", i)), lines)
	}
}

// TestWhatWasReadIsOnTheDisk: an object is visible a moment before its PUT has made its name durable. Whoever reads it then may act
// upon it, and a power cut right after must not undo it.
func TestWhatWasReadIsOnTheDisk(t *testing.T) {
	dir, disk, root := newDisk(t)
	s := mustOpen(t, root)
	t.Cleanup(func() { _ = s.lock.file.Close() })
	mustPut(t, s, "volumes/v/manifest", "old")
	if err := s.prepare(); err != nil {
		t.Fatal(err)
	}
	tmp, _, err := s.writeTemp(t.Context(), "volumes/v/manifest", []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.publish(t.Context(), tmp, s.path("volumes/v/manifest"), store.Condition{}); err != nil { // and its process is stopped
		t.Fatal(err)
	}
	other := mustOpen(t, root)
	if got := mustGet(t, other, "volumes/v/manifest"); got != "new" {
		t.Fatalf("read %q", got)
	}
	image, at := filepath.Join(dir, "cut"), filepath.Join(dir, "mnt-cut")
	copyDisk(t, disk, image)
	mountDisk(t, image, at)
	if got := mustGet(t, mustOpen(t, at), "volumes/v/manifest"); got != "new" {
		t.Errorf("after the power cut it is %q", got)
	}
}

// newDisk makes a disk image and mounts it.
func newDisk(t *testing.T) (dir, disk, root string) {
	t.Helper()
	dir = t.TempDir()
	disk, root = filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")
	run(t, "truncate", "-s", "48M", disk)
	run(t, "mkfs.ext4", "-q", disk)
	mountDisk(t, disk, root)
	return dir, disk, root
}

func copyDisk(t *testing.T, disk, image string) {
	t.Helper()
	run(t, "cp", "--sparse=always", disk, image)
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// mountDisk mounts an image until the test ends. The journal is not written by time: only what syncs is on the disk.
func mountDisk(t *testing.T, image, at string) {
	t.Helper()
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "-o", "loop,commit=600", image, at)
	t.Cleanup(func() {
		if err := syscall.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	})
}

func changer(t *testing.T, root, said string) *exec.Cmd {
	t.Helper()
	out, err := os.Create(said)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "GLIDEFS_DIR_TEST_CHANGE="+root)
	c.Stdout, c.Stderr = out, os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait() // killed
	})
	return c
}

// stop returns once the child does nothing any more.
func stop(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if err := c.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(c.Process.Pid, &status, syscall.WUNTRACED, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || !status.Stopped() {
			t.Fatalf("the child did not stop: %v, %v", status, err)
		}
		return
	}
}

// readSteps returns the whole lines that the child has written.
func readSteps(t *testing.T, said string) []string {
	t.Helper()
	b, err := os.ReadFile(said)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	return lines[:len(lines)-1]
}

// checkCut mounts what the disk held and looks at every object: it is as the last step that ended left it, or as the one did
// that had begun.
func checkCut(t *testing.T, image, at string, lines []string) {
	t.Helper()
	ended, begun := map[string]int{}, map[string]int{}
	for _, line := range lines {
		var verb string
		var i int
		if _, err := fmt.Sscan(line, &verb, &i); err != nil {
			t.Fatal(err)
		}
		if begun[powerKey(i)] = i; verb == "end" {
			ended[powerKey(i)] = i
		}
	}
	mountDisk(t, image, at)
	s := mustOpen(t, at)
	defer func() { _ = s.lock.file.Close() }() // or the mount stays busy
	for key, last := range begun {
		body, _, err := s.Get(t.Context(), key, store.Range{})
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Fatal(err)
		}
		old, has := ended[key]
		if !is(body, err, last) && !(has && is(body, err, old)) && (has || err == nil) {
			t.Errorf("step %d of %s was acknowledged and %d begun; there are %d bytes, %.16q..., %v", old, key, last, len(body), body, err)
		}
		mustPut(t, s, key, "goes on")
	}
	for in, err := range s.List(t.Context(), "", "") {
		if _, known := begun[in.Key]; err != nil || !known {
			t.Errorf("%s is listed, %v", in.Key, err)
		}
	}
}

// is tells whether an object is as step i left it.
func is(body []byte, err error, i int) bool {
	if deletes(i) {
		return err != nil
	}
	return err == nil && string(body) == string(powerBody(i))
}
