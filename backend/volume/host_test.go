package volume

import (
	"runtime"
	"slices"
	"testing"

	"glidefs-appliance/backend/pack"
)

// What the next pack is built with outlives any number of garbage collections while another one is being built, and is
// not kept longer.
func TestBuildersStayWarm(t *testing.T) {
	h := newDiskRig(t).start(t)
	busy := h.builder(4096)
	var free []*pack.Builder
	for range warmBuilders {
		free = append(free, h.builder(4096))
	}
	over := h.builder(4096)
	for _, b := range append(free, over) {
		h.reuse(b, 4096)
	}
	for range 3 {
		runtime.GC()
	}
	for range warmBuilders {
		if b := h.builder(4096); !slices.Contains(free, b) {
			t.Error("a builder is new although some were given back")
		}
	}
	for _, b := range append(free, busy) {
		h.reuse(b, 4096)
	}
	if p := h.builders(4096); len(p.warm) != 0 || p.used != 0 {
		t.Errorf("%d builders are kept, %d in use, while nothing is built", len(p.warm), p.used)
	}
}
