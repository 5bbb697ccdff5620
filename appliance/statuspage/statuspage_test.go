package statuspage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func open(t *testing.T) (*Page, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "status.page")
	p, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p, path
}

func TestWriteRead(t *testing.T) {
	p, path := open(t)
	for _, n := range []int{0, 1, 1000, firstSlot - headLen, firstSlot, 300_000, 10} {
		want := bytes.Repeat([]byte("x"), n)
		if err := p.Write(want); err != nil {
			t.Fatal(err)
		}
		c, err := Read(path)
		if err != nil || !bytes.Equal(c.Bytes, want) {
			t.Fatalf("%d bytes: read %d, %v", n, len(c.Bytes), err)
		}
		if !c.Writer.Alive() || c.Writer.PID != os.Getpid() {
			t.Errorf("we are not alive: %+v", c.Writer)
		}
	}
}

func TestNone(t *testing.T) {
	if _, err := Read(filepath.Join(t.TempDir(), "none")); !errors.Is(err, ErrNone) {
		t.Errorf("no file: %v", err)
	}
	for _, b := range [][]byte{nil, []byte("x"), make([]byte, 2*firstSlot)} {
		if _, err := decode(b); !errors.Is(err, ErrNone) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	}
}

// A slot that is torn, or damaged in any byte, gives way to the other one.
func TestTornSlot(t *testing.T) {
	p, path := open(t)
	for _, s := range []string{"older", "newer"} {
		if err := p.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newest := int(p.seq%2) * len(whole) / 2
	for i := range headLen + len("newer") {
		torn := bytes.Clone(whole)
		torn[newest+i] ^= 0xff
		if c, err := decode(torn); err != nil || string(c.Bytes) != "older" {
			t.Fatalf("byte %d: got %q, %v", i, c.Bytes, err)
		}
	}
}

// A reader never sees anything but what one Write wrote, and never nothing.
func TestConcurrentReaders(t *testing.T) {
	p, path := open(t)
	if err := p.Write([]byte("0")); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				c, err := Read(path)
				if err != nil {
					t.Error(err)
					return
				}
				if s := string(c.Bytes); strings.Trim(s, s[:1]) != "" {
					t.Errorf("mixed: %.20q", s)
					return
				}
			}
		})
	}
	for i := range 2000 {
		content := strings.Repeat(fmt.Sprint(i%10), 1+(i*977)%100_000)
		if err := p.Write([]byte(content)); err != nil {
			t.Error(err)
		}
	}
	close(done)
	readers.Wait()
}

// The next daemon's page is newer than the last one's.
func TestSequenceGoesOn(t *testing.T) {
	p, path := open(t)
	for range 5 {
		if err := p.Write([]byte("first daemon")); err != nil {
			t.Fatal(err)
		}
	}
	q, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if q.seq <= p.seq {
		t.Errorf("sequence %d after %d", q.seq, p.seq)
	}
}

// The next daemon's page is in the same file when that will do: a full file system gives no other.
func TestReuse(t *testing.T) {
	p, path := open(t)
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	q, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if c, err := Read(path); err != nil || string(c.Bytes) != "last" {
		t.Errorf("until the first write: %q, %v", c.Bytes, err)
	}
	if err := q.Write([]byte("next")); err != nil {
		t.Fatal(err)
	}
	if c, err := Read(path); err != nil || string(c.Bytes) != "next" {
		t.Errorf("read %q, %v", c.Bytes, err)
	}
	after, err := os.Stat(path)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("another file: %v", err)
	}
}

// A file that is no page gives way to one.
func TestRubbish(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page")
	for _, b := range [][]byte{[]byte("rubbish"), bytes.Repeat([]byte{7}, 2*firstSlot), nil} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Write([]byte("fine")); err != nil {
			t.Fatal(err)
		}
		if c, err := Read(path); err != nil || string(c.Bytes) != "fine" {
			t.Errorf("over %d bytes: %q, %v", len(b), c.Bytes, err)
		}
		p.Close()
	}
}

func TestAlive(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	born, _ := stat(cmd.Process.Pid)
	w := Writer{PID: cmd.Process.Pid, Born: born, Boot: boot()}
	if !w.Alive() {
		t.Error("a running process is dead")
	}
	other := w
	other.Born++
	if other.Alive() {
		t.Error("another process with the same id counts as the writer")
	}
	cmd.Process.Kill()
	cmd.Wait()
	if w.Alive() {
		t.Error("a dead process is alive")
	}
}

func FuzzDecode(f *testing.F) {
	path := filepath.Join(f.TempDir(), "page")
	p, err := Open(path)
	if err != nil {
		f.Fatal(err)
	}
	p.Write([]byte("content"))
	b, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	half := len(b) / 2
	f.Add(append(bytes.Clone(b[:128]), b[half:half+128]...))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = decode(b) })
}
