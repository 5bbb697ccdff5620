package exports

import (
	"testing"

	"glidefs-appliance/appliance/statedir"
	"glidefs-appliance/frontends/ublk"
)

// What the last daemon had is what the next one serves, with the reason that holds now; after a boot, or where it cannot be
// had any more, its best.
func TestChooseAgain(t *testing.T) {
	none := ublk.Support{Reason: "no module"}
	copies := ublk.Support{UserCopy: true, Reason: "too old"}
	zero := ublk.Support{UserCopy: true, ZeroCopy: true}
	const before, offered = "as before the daemon was started again", "the kernel offers zero copy"
	const asked, booted = true, true
	for _, x := range []struct {
		was           string
		asked, booted bool
		s             ublk.Support
		kind, why     string
	}{
		{ublkZero, !asked, !booted, zero, ublkZero, offered},
		{ublkCopy, !asked, !booted, zero, ublkCopy, before},
		{fuseFile, !asked, !booted, zero, fuseFile, before},
		{ublkCopy, !asked, !booted, copies, ublkCopy, "too old"},
		{fuseFile, !asked, !booted, none, fuseFile, "no ublk: no module"},
		{fuseFile, asked, !booted, zero, fuseFile, "as asked"},

		{ublkCopy, !asked, booted, zero, ublkZero, offered},
		{fuseFile, !asked, booted, zero, ublkZero, offered},
		{ublkZero, !asked, booted, copies, ublkCopy, "too old"},
		{ublkCopy, !asked, booted, none, fuseFile, "no ublk: no module"},
		{ublkCopy, asked, booted, zero, ublkCopy, "as asked"},
		{ublkZero, asked, booted, copies, ublkCopy, "too old"},
	} {
		c := chooseAgain(statedir.Export{Frontend: x.was, Asked: x.asked}, x.booted, x.s)
		if c.kind != x.kind || c.why != x.why {
			t.Errorf("%s, then %+v: %s because %q, want %s because %q", x.was, x.s, c.kind, c.why, x.kind, x.why)
		}
		if same := c.kind == x.was; c.asked != (same && x.asked) || c.kept != (same && !x.booted) {
			t.Errorf("%s, then %+v: %+v", x.was, x.s, c)
		}
	}
}
