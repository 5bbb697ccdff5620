package exports

import (
	"errors"
	"strings"
	"testing"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/statedir"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store/mem"
)

// TestShortGraceNamesTheDisk that is open, where, and what to do about it.
func TestShortGraceNamesTheDisk(t *testing.T) {
	state := &statedir.State{ID: [16]byte{1}}
	mine, theirs := manifest.Owner{State: state.ID, Host: "here"}, manifest.Owner{State: [16]byte{2}, Host: "beta"}
	m := &manifest.Manifest{Name: "d", Size: 1 << 30, Sector: 4096, Since: time.Unix(1e9, 0)}
	for _, tt := range []struct {
		owner  manifest.Owner
		making bool
		want   []string
	}{
		{theirs, false, []string{"disk \"d\"", "beta has had it since 2001-09-09T01:46:40Z", "grace time of 2s", "168h", "detach it there first"}},
		{mine, false, []string{"disk \"d\"", "was not closed here", "`glide sync d`"}},
		{theirs, true, []string{"disk \"d\"", "beta has been salvaging it", "until 2001-09-16T01:46:40Z"}},
	} {
		st := mem.New()
		man := storeManager(t, st)
		man.o.State, m.Owner = state, tt.owner
		var err error
		if tt.making {
			_, err = manifest.Announce(t.Context(), st, m)
		} else {
			_, err = manifest.Create(t.Context(), st, m)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = man.GC(t.Context(), api.GC{Grace: 2 * time.Second})
		var no *api.Error
		if !errors.As(err, &no) || no.Code != api.CodeBusy {
			t.Fatalf("%v", err)
		}
		for _, want := range tt.want {
			if !strings.Contains(no.Message, want) {
				t.Errorf("%q does not say %q", no.Message, want)
			}
		}
		if _, err := man.GC(t.Context(), api.GC{}); err != nil {
			t.Error(err)
		}
	}
}

func TestShortGraceWhenAllIsClosed(t *testing.T) {
	st := mem.New()
	if err := create(t, st, "d"); err != nil {
		t.Fatal(err)
	}
	if _, err := storeManager(t, st).GC(t.Context(), api.GC{Grace: 2 * time.Second}); err != nil {
		t.Error(err)
	}
}
