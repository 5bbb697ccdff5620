package appliance

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/appliance/config"
)

// A daemon's end, in virtual time.
func TestLife(t *testing.T) {
	for name, tc := range map[string]struct {
		keep bool
		does func(l *life, disks *int, ever *bool)
		ends bool
	}{
		"nobody ever comes":    {does: func(*life, *int, *bool) {}, ends: true},
		"serve waits for ever": {keep: true, does: func(*life, *int, *bool) {}},
		"a disk is attached": {does: func(l *life, disks *int, ever *bool) {
			l.connection(nil, http.StateNew)
			*disks, *ever = 1, true
			l.connection(nil, http.StateClosed)
		}},
		"a client is connected": {does: func(l *life, _ *int, ever *bool) {
			*ever = true
			l.connection(nil, http.StateNew)
		}},
		"the last disk and the last client go": {does: func(l *life, disks *int, ever *bool) {
			l.connection(nil, http.StateNew)
			*ever = true
			l.connection(nil, http.StateClosed)
		}, ends: true},
		"a signal comes": {keep: true, does: func(l *life, disks *int, _ *bool) {
			*disks = 1
			l.end()
		}, ends: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disks, ever := 0, false
				l := newLife(tc.keep, func() (int, bool) { return disks, ever })
				tc.does(l, &disks, &ever)
				if l.mu.timer != nil {
					t.Error("it thinks of ending while disks are being opened again")
				}
				l.restored()
				time.Sleep(time.Hour) // of the bubble
				synctest.Wait()
				if l.ending() != tc.ends {
					t.Errorf("ending: %v", l.ending())
				}
				if l.mu.timer != nil {
					l.mu.timer.Stop()
				}
			})
		})
	}
}

// Once it has decided to end, a client that comes is told so, and does not keep it.
func TestLateClient(t *testing.T) {
	l := newLife(false, func() (int, bool) { return 0, true })
	l.restored()
	l.connection(nil, http.StateNew)
	if !l.ending() {
		t.Error("a late client changed its mind")
	}
	<-l.done
}

func TestBudgets(t *testing.T) {
	for total, want := range map[int64]int64{1 << 30: 1 << 30, 100 << 30: 100 << 30 / 100 * 10, 10 << 40: 32 << 30} {
		if got := logBudget(config.File{}, total); got != want {
			t.Errorf("log on %d bytes: %d, want %d", total, got, want)
		}
	}
	if got := cacheBudget(config.File{}, 100<<30); got != 100<<30/100*20 {
		t.Errorf("cache: %d", got)
	}
}
