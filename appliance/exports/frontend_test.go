package exports

import (
	"testing"

	"glidefs-appliance/frontends/ublk"
)

// What the last daemon had is what the next one serves, with the reason that holds now; on another kernel its best.
func TestChooseAgain(t *testing.T) {
	none := ublk.Support{Reason: "no module"}
	copies := ublk.Support{UserCopy: true, Reason: "too old"}
	zero := ublk.Support{UserCopy: true, ZeroCopy: true}
	for _, x := range []struct {
		was  string
		s    ublk.Support
		kind string
		why  string
	}{
		{ublkZero, zero, ublkZero, "the kernel offers zero copy"},
		{ublkCopy, zero, ublkCopy, "as before the daemon was started again"},
		{fuseFile, zero, fuseFile, "as before the daemon was started again"},
		{ublkZero, copies, ublkCopy, "too old"},
		{ublkCopy, copies, ublkCopy, "too old"},
		{ublkCopy, none, fuseFile, "no ublk: no module"},
		{fuseFile, none, fuseFile, "no ublk: no module"},
	} {
		c := chooseAgain(x.was, x.s)
		if c.kind != x.kind || c.why != x.why {
			t.Errorf("%s, then %+v: %s because %q, want %s because %q", x.was, x.s, c.kind, c.why, x.kind, x.why)
		}
		if c.asked != (c.kind == x.was) {
			t.Errorf("%s, then %+v: asked %t", x.was, x.s, c.asked)
		}
	}
}
