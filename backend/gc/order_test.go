package gc_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
)

// TestExpiredRootsGoFirst: a run that is interrupted leaves no root in the trash that names what is gone.
func TestExpiredRootsGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.volume("v", w.packs(3)...)
		w.trash("v")
		w.litter(20)
		time.Sleep(2 * manifest.Grace)
		w.run()
		var order []string
		for _, q := range w.faults.Log() {
			if q.Op == store.OpDelete {
				order = append(order, q.Key)
			}
		}
		if len(order) != 24 || !strings.HasPrefix(order[0], "trash/") {
			t.Errorf("deleted in this order: %q", order)
		}
	})
}
