package logfile

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.log")
	l, err := Open(path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	block := bytes.Repeat([]byte{'x'}, 1<<20)
	for i := range 6 * maxSize >> 20 {
		block[0], block[len(block)-1] = byte('a'+i/(maxSize>>20)), '\n'
		if n, err := l.Write(block); n != len(block) || err != nil {
			t.Fatal(n, err)
		}
	}
	for name, first := range map[string]byte{path: 'f', path + ".1": 'e', path + ".2": 'd', path + ".3": 'c'} {
		b, err := os.ReadFile(name)
		if err != nil || len(b) != maxSize || b[0] != first {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	if _, err := os.Stat(path + ".4"); err == nil {
		t.Error("too many old files")
	}
}

// What was there stays, and counts.
func TestAppends(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.log")
	for range 2 {
		l, err := Open(path, false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Write([]byte("line\n")); err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	if b, _ := os.ReadFile(path); string(b) != "line\nline\n" {
		t.Errorf("%q", b)
	}
	if l, err := Open(path, false); err != nil || l.size != 10 {
		t.Errorf("size %d, %v", l.size, err)
	}
}
