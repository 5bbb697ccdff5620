package vfs

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// outcomes collects what many cuts at k leave, as told by describe.
func outcomes(c *Crash, k int, describe func(c *Crash) string) []string {
	rng := rand.New(rand.NewPCG(1, uint64(k)))
	seen := map[string]int{}
	for range 400 {
		seen[describe(c.CutAt(k, rng))]++
	}
	return sortedKeys(seen)
}

// text gives the content of a file with runs of a byte shortened per sector, or "none".
func text(name string) func(c *Crash) string {
	return func(c *Crash) string {
		data, err := ReadFile(c, name)
		if errors.Is(err, fs.ErrNotExist) {
			return "none"
		}
		var b strings.Builder
		for len(data) > 0 {
			n := min(sector, len(data))
			if data[0] == 0 {
				b.WriteByte('.')
			} else {
				b.WriteByte(data[0])
			}
			if bytes.Count(data[:n], data[:1]) != n {
				b.WriteByte('!')
			}
			data = data[n:]
		}
		return b.String()
	}
}

func wantOutcomes(t *testing.T, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("possible after a cut: %q\nwant %q", got, want)
	}
}

func fill(c byte, sectors int) []byte { return bytes.Repeat([]byte{c}, sectors*sector) }

func TestCutContent(t *testing.T) {
	c := NewCrash()
	f := create(t, c, "f")
	write(t, f, fill('a', 2), 0)
	must(t, f.Sync())
	must(t, c.SyncDir("/"))
	write(t, f, fill('b', 2), 0)
	k := c.Ops()
	write(t, f, fill('c', 1), 0)
	must(t, f.Sync())

	wantOutcomes(t, outcomes(c, k, text("f")), "aa", "ab", "ba", "bb")
	wantOutcomes(t, outcomes(c, k+1, text("f")), "aa", "ab", "ba", "bb", "ca", "cb")
	wantOutcomes(t, outcomes(c, k+2, text("f")), "cb")
	wantOutcomes(t, outcomes(c, k-1, text("f")), "aa")
}

// A sector is written from the page cache as a whole: the later of two writes to it is never there without the
// earlier.
func TestCutSectorIsWhole(t *testing.T) {
	c := NewCrash()
	f := create(t, c, "f")
	must(t, c.SyncDir("/"))
	must(t, f.Truncate(1024))
	must(t, f.Sync())
	write(t, f, []byte("one"), 510)
	write(t, f, []byte("two"), 513)
	got := outcomes(c, c.Ops(), func(c *Crash) string {
		data, err := ReadFile(c, "f")
		must(t, err)
		return string(bytes.ReplaceAll(data[510:516], []byte{0}, []byte{'.'}))
	})
	wantOutcomes(t, got, "......", "on....", "..e...", "one...", "..etwo", "onetwo")
}

func TestCutSizes(t *testing.T) {
	c := NewCrash()
	f := create(t, c, "f")
	write(t, f, fill('a', 2), 0)
	must(t, f.Sync())
	must(t, c.SyncDir("/"))
	write(t, f, fill('b', 1), 2*sector)
	wantOutcomes(t, outcomes(c, c.Ops(), text("f")), "aa", "aa.", "aab")
	must(t, f.Truncate(sector))
	for _, o := range outcomes(c, c.Ops(), text("f")) {
		if !slices.Contains([]string{"a", "aa", "aa.", "aab", "a.", "a..", "a.b"}, o) {
			t.Errorf("impossible: %q", o)
		}
	}
	must(t, f.Sync())
	wantOutcomes(t, outcomes(c, c.Ops(), text("f")), "a")
	must(t, f.Allocate(sector, sector, true))
	wantOutcomes(t, outcomes(c, c.Ops(), text("f")), "a")
	must(t, f.Allocate(sector, sector, false))
	wantOutcomes(t, outcomes(c, c.Ops(), text("f")), "a", "a.")
}

func TestCutFolders(t *testing.T) {
	list := func(c *Crash) string {
		names, _ := c.List("/")
		return strings.Join(names, " ")
	}
	c := NewCrash()
	create(t, c, "a")
	create(t, c, "b")
	wantOutcomes(t, outcomes(c, c.Ops(), list), "", "a", "b", "a b")
	must(t, c.SyncDir("/"))
	wantOutcomes(t, outcomes(c, c.Ops(), list), "a b")
	must(t, c.Rename("a", "c"))
	must(t, c.Remove("b"))
	wantOutcomes(t, outcomes(c, c.Ops(), list), "a b", "b c", "a", "c")
	must(t, c.MkdirAll("d"))
	wantOutcomes(t, outcomes(c, c.Ops(), list), "c d")

	create(t, c, "d/x")
	must(t, c.Rename("d/x", "y"))
	both := func(c *Crash) string {
		names, _ := c.List("d")
		return list(c) + ":" + strings.Join(names, " ")
	}
	wantOutcomes(t, outcomes(c, c.Ops(), both), "c d:", "c d:x", "c d y:")
	must(t, c.SyncDir("/"))
	wantOutcomes(t, outcomes(c, c.Ops(), both), "c d y:")

	must(t, c.RemoveAll("d"))
	must(t, c.SyncDir("/"))
	wantOutcomes(t, outcomes(c, c.Ops(), list), "c y")
}

// The content of a file may be lost although its new name survives, and the reverse.
func TestCutNeedsBothSyncs(t *testing.T) {
	c := NewCrash()
	f := create(t, c, "f")
	write(t, f, fill('a', 1), 0)
	wantOutcomes(t, outcomes(c, c.Ops(), text("f")), "none", "", ".", "a")
	must(t, f.Sync())
	wantOutcomes(t, outcomes(c, c.Ops(), text("f")), "none", "a")
	must(t, c.SyncDir("."))
	wantOutcomes(t, outcomes(c, c.Ops(), text("f")), "a")
}

func TestWriteFileSurvivesCutAnywhere(t *testing.T) {
	c := NewCrash()
	must(t, WriteFile(c, "head", fill('a', 9)))
	old := c.Ops()
	must(t, WriteFile(c, "head", fill('b', 3)))
	for k := old; k < c.Ops(); k++ {
		for _, o := range outcomes(c, k, text("head")) {
			if o != "aaaaaaaaa" && o != "bbb" {
				t.Errorf("after %q: %q", c.Log()[k-1], o)
			}
		}
	}
	wantOutcomes(t, outcomes(c, c.Ops(), text("head")), "bbb")
	want := []string{"create head.new", "write head.new 0+1536", "sync head.new", "rename head.new head", "syncdir ."}
	if got := c.Log()[old:]; !slices.Equal(got, want) {
		t.Errorf("log %q, want %q", got, want)
	}
}

// After kill -9 everything is there, the locks are free, and what was not synced can still be lost.
func TestKill(t *testing.T) {
	c := NewCrash()
	_, err := c.Lock("lock")
	must(t, err)
	f := create(t, c, "f")
	must(t, c.SyncDir("/"))
	write(t, f, fill('a', 1), 0)
	killed := c.Kill()
	write(t, f, fill('z', 1), 0)

	_, err = killed.Lock("lock")
	must(t, err)
	if got := text("f")(killed); got != "a" {
		t.Errorf("killed: %q", got)
	}
	wantOutcomes(t, outcomes(killed, killed.Ops(), text("f")), "", ".", "a")
	g, err := killed.Open("f")
	must(t, err)
	must(t, g.Sync())
	wantOutcomes(t, outcomes(killed, killed.Ops(), text("f")), "a")
	if got := text("f")(c); got != "z" {
		t.Errorf("the killed one changed the other: %q", got)
	}
	if got := text("f")(c.KillAt(2)); got != "" {
		t.Errorf("killed before the write: %q", got)
	}
}

// A cut is a file system of its own: nothing written to it is seen elsewhere.
func TestCutIsIndependent(t *testing.T) {
	c := NewCrash()
	f := create(t, c, "f")
	must(t, c.SyncDir("/"))
	write(t, f, pattern(3*pageSize, 1), 0)
	must(t, f.Sync())
	rng := rand.New(rand.NewPCG(1, 1))
	for range 10 {
		cut := c.CutAt(c.Ops(), rng)
		g, err := cut.Open("f")
		must(t, err)
		write(t, g, pattern(100, 9), 50)
		must(t, g.Truncate(8000))
	}
	if got, err := ReadFile(c, "f"); err != nil || !bytes.Equal(got, pattern(3*pageSize, 1)) {
		t.Errorf("changed through a cut (%v)", err)
	}
}

func TestCutIsRepeatable(t *testing.T) {
	c := NewCrash()
	rng := rand.New(rand.NewPCG(3, 3))
	f := create(t, c, "f")
	for range 50 {
		write(t, f, pattern(rng.IntN(5000)+1, byte(rng.IntN(256))), int64(rng.IntN(20000)))
	}
	cut := func() string {
		return text("f")(c.CutAt(40, rand.New(rand.NewPCG(7, 7))))
	}
	if a, b := cut(), cut(); a != b {
		t.Errorf("same seed, different disks:\n%s\n%s", a, b)
	}
}

func BenchmarkCutAtEveryOp(b *testing.B) {
	c := NewCrash()
	rng := rand.New(rand.NewPCG(1, 1))
	f, _ := c.Create("segment")
	_ = f.Truncate(4 << 20)
	_ = c.SyncDir("/")
	for i := range 200 {
		_, _ = f.WriteAt(pattern(4096, byte(i)), rng.Int64N(1000)*4096)
		if i%10 == 0 {
			_ = f.Sync()
		}
	}
	for b.Loop() {
		for k := range c.Ops() + 1 {
			c.CutAt(k, rng)
		}
	}
}
