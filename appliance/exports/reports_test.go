package exports

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/appliance/api"
)

// While nothing moves, the last progress is said again, with the health that the store has by then.
func TestStandstillIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var health atomic.Value
		health.Store("ok")
		var said []api.Progress
		r := newReports(t.Context(), func(p api.Progress) { said = append(said, p) }, func() Health { return Health{Text: health.Load().(string)} })
		time.Sleep(3*repeatEvery + repeatEvery/2) // of the bubble: nothing to say yet
		r.say(7, 9)
		health.Store("down")
		time.Sleep(2 * repeatEvery)
		r.end()
		want := []api.Progress{{Left: 7, Total: 9, Store: "ok"}, {Left: 7, Total: 9, Store: "down"}, {Left: 7, Total: 9, Store: "down"}}
		if !slices.Equal(said, want) {
			t.Errorf("said %v, want %v", said, want)
		}
		time.Sleep(time.Hour)
		if len(said) != len(want) {
			t.Error("it goes on after its end")
		}
	})
}
