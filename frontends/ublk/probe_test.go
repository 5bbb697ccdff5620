package ublk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	for _, x := range []struct {
		kernel         string
		features       uint64
		force          bool
		zero, user     bool
		reasonContains string
	}{
		{"6.4", 0x7f, false, false, false, "6.5"},
		{"6.12", 0x1fe, false, false, true, "6.17"},
		{"6.16", 0x3fff, false, false, true, "6.17"},
		{"6.17", 0x7fff, false, true, true, ""},
		{"6.17", 0x7fff, true, false, true, forceCopyEnv},
		{"7.3", 0x1fffff, false, true, true, ""},
	} {
		s := judge(x.features, x.force)
		if s.ZeroCopy != x.zero || s.UserCopy != x.user || !strings.Contains(s.Reason, x.reasonContains) || s.ZeroCopy != (s.Reason == "") {
			t.Errorf("%s: %+v", x.kernel, s)
		}
	}
}

// TestVerify: a mode that fails its self-test is not offered, the next one is, and the reason is kept.
func TestVerify(t *testing.T) {
	broken := errors.New("other bytes arrived")
	const old = "as the kernel is"
	both, one := Support{ZeroCopy: true, UserCopy: true}, Support{UserCopy: true, Reason: old}
	for _, x := range []struct {
		s          Support
		zero, user error // of the tests
		want       Support
	}{
		{both, nil, broken, both}, // not asked: it is served by the other
		{both, broken, nil, Support{UserCopy: true, Reason: "zero copy failed its self-test on this kernel: other bytes arrived"}},
		{both, broken, broken, Support{Reason: "USER_COPY failed its self-test on this kernel: other bytes arrived"}},
		{one, broken, nil, one},
		{one, nil, broken, Support{Reason: "USER_COPY failed its self-test on this kernel: other bytes arrived"}},
		{Support{Reason: old}, broken, broken, Support{Reason: old}},
	} {
		if got := verify(x.s, func(zeroCopy bool) error { return map[bool]error{true: x.zero, false: x.user}[zeroCopy] }); got != x.want {
			t.Errorf("%+v, tests say %v and %v: %+v", x.s, x.zero, x.user, got)
		}
	}
}

// TestExercise: the self-test is passed by a device whose bytes are those of its file, and by none that loses or changes any.
func TestExercise(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, size int64) (string, *os.File) {
		path := filepath.Join(dir, name)
		f, err := os.Create(path)
		if err == nil {
			err = f.Truncate(size)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return path, f
	}
	good, f := file("good", testBytes)
	other, _ := file("other", testBytes)
	if err := exercise(good, int(f.Fd())); err != nil {
		t.Errorf("itself: %v", err)
	}
	if err := exercise(other, int(f.Fd())); err == nil || !strings.Contains(err.Error(), "other bytes") {
		t.Errorf("a device over another file: %v", err)
	}
	if err := exercise(filepath.Join(dir, "none"), int(f.Fd())); err == nil {
		t.Error("no device")
	}
}

func TestDenied(t *testing.T) {
	for release, want := range map[string]bool{
		"6.18.4": true, "6.18.5-arch1-1": true, "6.18.6": false, "6.18.44-fc": false, "6.18.50": false,
		"6.17.0-1015-azure": true, "6.17.0-1018-azure-fde": true, "6.17.0-1014-azure": false, "6.17.0-1016-aws": true,
		"6.17.0-1016-generic": false, "6.17.13+deb13-cloud-amd64": false, "": false,
	} {
		if got := denied(release) != ""; got != want {
			t.Errorf("%q: denied %t, want %t", release, got, want)
		}
	}
}

func TestMiscounts(t *testing.T) {
	for release, want := range map[string]bool{
		"6.17.13+deb13-cloud-amd64": true, "6.17.0-14-generic": true, "6.18.4": true, "6.18.5": false, "6.18.15-1": false, "6.19.0-rc1": false, "7.3.4+deb13": false,
	} {
		if got := miscounts(release); got != want {
			t.Errorf("%s: %t, want %t", release, got, want)
		}
	}
}

func TestBudget(t *testing.T) {
	tags, devices, last := 0, 0, maxDepth1
	for tags+2*maxDepth1 < tableSlots {
		d := depthFor(tags)
		if d > last || d < minDepth || d&(d-1) != 0 {
			t.Fatalf("after %d tags: depth %d after %d", tags, d, last)
		}
		tags, last, devices = tags+d, d, devices+1
	}
	if devices < 300 {
		t.Errorf("%d queues fill the table of a ring", devices)
	}
	if d := depthFor(2 * tableSlots); d != minDepth {
		t.Errorf("beyond the table: depth %d", d)
	}
}

func TestOwner(t *testing.T) {
	for _, perTag := range []bool{false, true} {
		seen := map[int]int{}
		for tag := range uint16(128) {
			seen[owner(1, tag, perTag, 4)]++
		}
		if want := map[bool]int{false: 1, true: 4}[perTag]; len(seen) != want {
			t.Errorf("tags of one queue, per tag %t: threads %v", perTag, seen)
		}
	}
}

func TestCookie(t *testing.T) {
	a, b := ownerCookie("state-1"), ownerCookie("state-2")
	d := diskCookie(a, "root")
	switch {
	case !ours(d, a), ours(d, b), ours(0, a), ours(1<<63, a):
		t.Error("owner is not told from others")
	case d == diskCookie(a, "home"):
		t.Error("two disks have one cookie")
	}
}

func TestPoolIsFair(t *testing.T) {
	p, err := newPool(4)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	reqs := make([]request, 8)
	for i := range reqs {
		reqs[i].buf = noBuffer
	}
	if !p.take(&reqs[0], true) || !p.take(&reqs[1], true) {
		t.Fatal("no buffer in a full pool")
	}
	if p.take(&reqs[2], true) {
		t.Fatal("long requests got the buffers of short ones")
	}
	if !p.take(&reqs[3], false) || !p.take(&reqs[4], false) || p.take(&reqs[5], false) || p.take(&reqs[6], false) {
		t.Fatal("short requests did not get what was left")
	}
	p.put(&reqs[3])
	if r := p.next(); r != &reqs[5] {
		t.Error("the first who waited was not the first served")
	}
	for _, i := range []int{0, 1, 4} {
		p.put(&reqs[i])
	}
	if r := p.next(); r != &reqs[6] {
		t.Error("short requests do not go first")
	}
	if p.next() != nil {
		t.Error("the long request got a buffer of the short ones")
	}
	p.put(&reqs[5])
	if r := p.next(); r != &reqs[2] {
		t.Error("the long request was forgotten")
	}
	if p.next() != nil {
		t.Error("somebody else was served")
	}
}
