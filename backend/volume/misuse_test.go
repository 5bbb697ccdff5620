package volume

import (
	"bytes"
	"errors"
	"math"
	"syscall"
	"testing"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/vfs"
	"glidefs-appliance/frontends"
)

const misuseSize = 1 << 20

func TestOutOfRange(t *testing.T) {
	r := newRig(vfs.NewCrash(), "/state")
	v := r.open(t, "a", OpenOptions{Create: misuseSize})
	defer func() { r.kill(v, false) }()
	ctx := t.Context()
	for _, at := range []struct{ off, n int64 }{
		{-1, 1}, {misuseSize, 1}, {misuseSize - 4095, 4096}, {0, misuseSize + 1}, {misuseSize + 1, 0}, {math.MaxInt64, 2}, {math.MinInt64, 1},
	} {
		p := make([]byte, at.n)
		var plan frontends.Plan
		for name, err := range map[string]error{
			"read": v.ReadAt(ctx, p, at.off), "write": v.WriteAt(ctx, p, at.off, true), "discard": v.Discard(ctx, at.off, at.n), "zeroes": v.WriteZeroes(ctx, at.off, at.n),
		} {
			if !errors.Is(err, frontends.ErrOutOfRange) {
				t.Errorf("%s %+v: %v", name, at, err)
			}
		}
		if v.MapRead(at.off, at.n, &plan) {
			t.Errorf("map %+v", at)
		}
	}
	for name, err := range map[string]error{
		"discard of too much": v.Discard(ctx, 4096, math.MaxInt64), "zeroes of less than nothing": v.WriteZeroes(ctx, 4096, -4096),
	} {
		if !errors.Is(err, frontends.ErrOutOfRange) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, writes := v.log.Unsettled(); writes != 0 {
		t.Errorf("%d writes all the same", writes)
	}
	if err := errors.Join(v.ReadAt(ctx, nil, misuseSize), v.WriteAt(ctx, nil, misuseSize, true), v.Discard(ctx, misuseSize, 0), v.WriteZeroes(ctx, 0, 0), v.Flush(ctx)); err != nil {
		t.Errorf("nothing: %v", err)
	}
}

func TestReadOnlyAndDetached(t *testing.T) {
	r := newRig(vfs.NewCrash(), "/state")
	v := r.open(t, "a", OpenOptions{Create: misuseSize})
	if err := v.WriteAt(t.Context(), []byte("some"), 5, false); err != nil {
		t.Fatal(err)
	}
	mustSync(t, v)
	r.close(t, v)
	everythingFails(t, v, ErrClosed)
	if err := v.Close(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("closed again: %v", err)
	}

	v = r.open(t, "a", OpenOptions{ReadOnly: true})
	ctx, p := t.Context(), make([]byte, 4)
	for name, err := range map[string]error{
		"write": v.WriteAt(ctx, p, 0, false), "discard": v.Discard(ctx, 0, 4096), "zeroes": v.WriteZeroes(ctx, 0, 4096), "grow": v.Grow(ctx, 2*misuseSize),
	} {
		if !errors.Is(err, frontends.ErrReadOnly) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := errors.Join(v.Flush(ctx), v.Sync(ctx, nil), v.ReadAt(ctx, p, 5)); err != nil || string(p) != "some" || !v.ReadOnly() {
		t.Errorf("%q, %v", p, err)
	}
	r.close(t, v)
	everythingFails(t, v, ErrClosed)
}

// Grow shows at once, reads as zeros, and is there after a detach, a crash, and elsewhere. A disk does not shrink.
func TestGrow(t *testing.T) {
	r := newRig(vfs.NewCrash(), "/state")
	v := r.open(t, "a", OpenOptions{Create: misuseSize})
	mark := bytes.Repeat([]byte("end!"), 1024)
	if err := v.WriteAt(t.Context(), mark, misuseSize-4096, false); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{0, -4096, misuseSize - 4096, misuseSize + 1} {
		var wrong *SizeError
		if err := v.Grow(t.Context(), size); !errors.As(err, &wrong) || wrong.Have != misuseSize || wrong.Ask != size || v.Size() != misuseSize {
			t.Errorf("grow to %d: %v", size, err)
		}
	}
	check := func(when string) {
		t.Helper()
		p := make([]byte, 2*misuseSize)
		if err := v.ReadAt(t.Context(), p, misuseSize-4096); v.Size() != 4*misuseSize || err != nil {
			t.Fatalf("%s: %d bytes, %v", when, v.Size(), err)
		}
		if !bytes.Equal(p[:4096], mark) || firstDiff(p[4096:], make([]byte, len(p)-4096)) >= 0 {
			t.Errorf("%s: wrong data", when)
		}
		last := v.Size() - 4096
		if err := v.WriteAt(t.Context(), mark, last, false); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	if err := v.Grow(t.Context(), 4*misuseSize); err != nil {
		t.Fatal(err)
	}
	check("at once")
	r.kill(v, false)
	v = r.open(t, "a", OpenOptions{})
	check("after a crash")
	mustSync(t, v)
	r.close(t, v)
	v = r.open(t, "a", OpenOptions{})
	check("after a detach")
	mustSync(t, v)
	r.kill(v, false)
	r.fs, r.state = vfs.NewCrash(), 2
	v = r.open(t, "a", OpenOptions{Takeover: true})
	check("elsewhere")
	r.kill(v, false)
}

func TestBadDisks(t *testing.T) {
	r := newRig(vfs.NewCrash(), "/state")
	h := r.start(t)
	defer func() { _ = r.c.Close() }()
	for name, o := range map[string]OpenOptions{
		"": {Create: misuseSize}, "../a": {Create: misuseSize}, "a/b": {Create: misuseSize}, "A": {Create: misuseSize},
		"odd": {Create: 1000}, "negative": {Create: -4096}, "sector": {Create: misuseSize, Sector: 1024}, "half": {Create: 4096 + 512, Sector: 4096},
	} {
		if v, err := Open(t.Context(), h, name, o); err == nil {
			t.Errorf("disk %q with %+v", name, o)
			v.Kill(ErrClosed)
		}
	}
	for _, o := range []OpenOptions{{}, {ReadOnly: true}, {ReadOnly: true, Create: misuseSize}, {Takeover: true}} {
		if _, err := Open(t.Context(), h, "none", o); !errors.Is(err, ErrNotFound) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if n, _ := stock(t, r.st, ""); n != 0 {
		t.Errorf("%d objects are left", n)
	}
	if names, err := r.fs.List(h.Logs); err != nil || len(names) > 0 {
		t.Errorf("left in the logs: %q, %v", names, err)
	}
	if n := h.Budget.Used(); n != 0 {
		t.Errorf("%d bytes of the budget", n)
	}
}

// List tells what there is, what it takes, and which manifests can't be read.
func TestList(t *testing.T) {
	r := newRig(vfs.NewCrash(), "/state")
	v := r.open(t, "a", OpenOptions{Create: misuseSize})
	if err := v.WriteAt(t.Context(), bytes.Repeat([]byte("x1y2"), 25_000), 0, false); err != nil {
		t.Fatal(err)
	}
	mustSync(t, v)
	b := r.open(t, "b", OpenOptions{Create: 2 * misuseSize, Sector: 512})
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { r.kill(v, false) }()
	if _, err := r.st.Put(t.Context(), manifest.Key("c"), []byte("no manifest"), store.Condition{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"d", "e"} { // d is a tombstone, e was deleted halfway
		m := &manifest.Manifest{Name: name, Size: misuseSize, Sector: 512, Tail: v.currentView().man.Tail}
		cell, err := manifest.Create(t.Context(), r.st, m)
		if err != nil {
			t.Fatal(err)
		}
		if err := cell.Replace(t.Context(), func(next *manifest.Manifest) {
			if next.Deleted = true; name == "d" {
				next.Bury()
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := List(t.Context(), r.st)
	if err != nil || len(got) != 4 {
		t.Fatalf("%+v, %v", got, err)
	}
	s := v.Status()
	if a := got[0]; a.Name != "a" || a.Size != misuseSize || a.Used != s.UploadedSize || a.Used == 0 || a.Closed || a.Owner != "host1" || !a.Last.Equal(s.BarrierTime) || a.Err != nil {
		t.Errorf("%+v", a)
	}
	if b := got[1]; b.Name != "b" || b.Size != 2*misuseSize || b.Used != 0 || !b.Closed || !b.Last.IsZero() || b.Err != nil {
		t.Errorf("%+v", b)
	}
	if c := got[2]; c.Name != "c" || !errors.Is(c.Err, manifest.ErrDamaged) {
		t.Errorf("%+v", c)
	}
	if e := got[3]; e.Name != "e" || !errors.Is(e.Err, manifest.ErrDeleting) {
		t.Errorf("%+v", e)
	}
}

// TestLogThatCannotBeLookedAt: a log that an attach cannot open this time, for want of descriptors say, is neither missing nor
// replaced by a new one.
func TestLogThatCannotBeLookedAt(t *testing.T) {
	fault := vfs.NewFault(vfs.NewCrash())
	r := newRig(fault, "/state")
	v := r.open(t, "a", OpenOptions{Create: misuseSize})
	want := bytes.Repeat([]byte{'1'}, 4096)
	if err := v.WriteAt(t.Context(), want, 0, false); err != nil {
		t.Fatal(err)
	}
	r.kill(v, false)
	r.start(t)
	fault.Before(func(op vfs.Op, name string) error {
		if op == vfs.OpOpen && name == "/state/logs/a/head" {
			return syscall.EMFILE
		}
		return nil
	})
	if _, err := Open(t.Context(), r.h, "a", OpenOptions{}); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("open: %v", err)
	}
	if err := Salvage(t.Context(), r.h, "a", "b", func(int64, int64) {}); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("salvage: %v", err)
	}
	fault.Before(nil)
	v = r.open(t, "a", OpenOptions{})
	defer func() { r.kill(v, false) }()
	got := make([]byte, 4096)
	if err := v.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q, %v", got[:1], err)
	}
}
