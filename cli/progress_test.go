package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/appliance/api"
)

// Not on a terminal: a line every five seconds, whether anything moves or not, and a last one.
func TestProgressLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		p := newProgress(&env{err: &out}, "uploading d")
		for range 12 {
			p.update(api.Progress{Left: 3 << 20, Total: 4 << 20, Store: "down"})
			time.Sleep(time.Second) // of the bubble
		}
		p.end(true)
		const stands = "uploading d: 1.00 MiB of 4.00 MiB (25 %); store: down\n"
		if want := stands + stands + "uploading d: 4.00 MiB of 4.00 MiB (100 %); store: down\n"; out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	})
}
