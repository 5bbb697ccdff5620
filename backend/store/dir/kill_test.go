package dir

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"glidefs-appliance/backend/store"
)

// putForEver overwrites one object with bodies of one repeated byte and reports each on stdout, until it is killed.
func putForEver(root string) error {
	s, err := Open(root, false)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		body := bytes.Repeat([]byte{byte('a' + i%26)}, 300_000+i%26)
		if _, err := s.Put(context.Background(), "packs/aa/object", body, store.Condition{}); err != nil {
			return err
		}
		fmt.Printf("%d\n", i)
	}
}

// TestKilledWriter: after kill -9 in the middle of PUTs the object is whole, not older than the last acknowledged one, and
// the lock is free.
func TestKilledWriter(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	for round := range 8 {
		last := killAfter(t, s.root, 2+round)
		body := mustGet(t, s, "packs/aa/object")
		n := len(body) - 300_000
		if n != last%26 && n != (last+1)%26 || strings.Count(body, body[:1]) != len(body) || int(body[0]) != 'a'+n {
			t.Fatalf("round %d: PUT %d was acknowledged, the object has %d bytes of %q", round, last, len(body), body[:1])
		}
		mustPut(t, s, "packs/aa/object", "the lock is free")
	}
	temps, err := os.ReadDir(filepath.Join(s.root, tmpDir))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d unfinished bodies left in the side folder", len(temps))
}

// killAfter lets a child PUT until it has reported n PUTs, kills it, and returns the last number it reported.
func killAfter(t *testing.T, root string, n int) (last int) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "GLIDEFS_DIR_TEST_FOREVER="+root)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for i := 0; lines.Scan(); i++ {
		if _, err := fmt.Sscan(lines.Text(), &last); err != nil {
			t.Fatal(err)
		}
		if i == n {
			_ = c.Process.Kill() // it may only have ended by itself, which the checks would show
		}
	}
	_ = c.Wait() // killed
	return last
}
