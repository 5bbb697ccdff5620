package exports

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/appliance/api"
)

func code(err error) api.Code {
	e := (*api.Error)(nil)
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// A name is one operation's at a time; whoever waits too long is told what for.
func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n names
		release, err := n.take(t.Context(), "d", "being attached")
		if err != nil {
			t.Fatal(err)
		}
		other, err := n.take(t.Context(), "e", "being attached")
		if err != nil {
			t.Fatal(err)
		}
		other()
		begin := time.Now()
		if _, err := n.take(t.Context(), "d", "being removed"); code(err) != api.CodeBusy || !strings.Contains(err.Error(), "being attached") {
			t.Errorf("got %v", err)
		}
		if time.Since(begin) != nameWait {
			t.Errorf("waited %s", time.Since(begin))
		}
		got := make(chan func())
		go func() {
			r, err := n.take(context.Background(), "d", "being removed")
			if err != nil {
				t.Error(err)
			}
			got <- r
		}()
		synctest.Wait()
		release()
		(<-got)()
		if len(n.held) != 0 {
			t.Errorf("still held: %v", n.held)
		}
	})
}

func TestCheckAttach(t *testing.T) {
	for name, tc := range map[string]struct {
		disk string
		a    api.Attach
		ok   bool
	}{
		"plain":            {"data", api.Attach{}, true},
		"with a size":      {"data", api.Attach{Size: 1 << 30, Sector: 512}, true},
		"no name":          {"", api.Attach{}, false},
		"a path":           {"a/b", api.Attach{}, false},
		"too small":        {"data", api.Attach{Size: 4096}, false},
		"too large":        {"data", api.Attach{Size: 1 << 61}, false},
		"odd":              {"data", api.Attach{Size: 1<<30 + 512}, false},
		"negative":         {"data", api.Attach{Size: -4096}, false},
		"strange sector":   {"data", api.Attach{Sector: 520}, false},
		"takeover to read": {"data", api.Attach{Takeover: true, ReadOnly: true}, false},
	} {
		if err := checkAttach(tc.disk, tc.a); (err == nil) != tc.ok || err != nil && code(err) != api.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWorthTelling(t *testing.T) {
	for _, tc := range []struct {
		was, now string
		want     bool
	}{
		{"", "ok", false}, {"", "opening", false}, {"opening", "ok", false}, {"ok", "ok", false}, {"", "detached", false},
		{"", "failed", true}, {"ok", "log full", true}, {"log full", "ok", true}, {"offline", "fenced", true}, {"opening", "failed", true},
	} {
		if got := worthTelling(tc.was, tc.now); got != tc.want {
			t.Errorf("%q to %q: %v", tc.was, tc.now, got)
		}
	}
}
