package manifest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
)

// began opens a window as a batch does: by its first PUT.
func began(t *testing.T, st store.Store) Window {
	t.Helper()
	w := Window{Local: time.Now()}
	info, err := st.Put(t.Context(), "packs/00/new", nil, store.Condition{})
	if err != nil {
		t.Fatal(err)
	}
	w.Store = info.Modified
	return w
}

func TestPublishWithinTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{Store: mem.New()}
		c := must[*Cell](t)(Create(t.Context(), n, sample("disk")))
		w := began(t, n.Store)
		time.Sleep(sendLimit)
		if err := c.Publish(t.Context(), w, next); err != nil || c.Current().Barrier.Seq != 100 {
			t.Fatalf("%v", err)
		}
	})
}

// A writer that slept between its packs and its manifest sends nothing.
func TestLateUpdateIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{Store: mem.New()}
		c := must[*Cell](t)(Create(t.Context(), n, sample("disk")))
		w := began(t, n.Store)
		time.Sleep(2 * Grace)
		puts := n.puts
		if err := c.Publish(t.Context(), w, next); !errors.Is(err, ErrLate) || n.puts != puts {
			t.Fatalf("%v, %d requests", err, n.puts-puts)
		}
		if err := c.Publish(t.Context(), began(t, n.Store), next); err != nil || c.Current().Barrier.Seq != 100 {
			t.Fatalf("started again: %v", err)
		}
	})
}

// A writer slept after its manifest PUT was sent and lost. The update is not repeated but undone, whatever became of it, whenever
// the lost PUT arrives, over a network that goes on losing requests.
func TestLateUpdateIsUndone(t *testing.T) {
	outcomes := map[string]int{}
	runs := storetest.Explore(func(choose func(int) int) {
		synctest.Test(t, func(t *testing.T) {
			n := &network{Store: mem.New(), choose: choose}
			c := must[*Cell](t)(Create(t.Context(), n, sample("disk")))
			w := began(t, n.Store)
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			n.faults = 1
			if err := c.Publish(ctx, w, next); err == nil {
				return
			}
			time.Sleep(2 * Grace)
			n.faults = 2
			// It took place in time (its answer was lost), or never does.
			inTime := false
			if raw, _, _ := n.Store.Get(t.Context(), Key("disk"), store.Range{}); string(raw) != string(c.Raw()) {
				inTime = true
			}
			err := c.Publish(t.Context(), w, func(m *Manifest) {
				if m.Barrier.Seq == 100 != inTime {
					t.Fatalf("built on %d, in time: %v", m.Barrier.Seq, inTime)
				}
			})
			if !errors.Is(err, ErrLate) {
				t.Fatal(err)
			}
			holds(t, n.Store, c)
			n.deliver()
			holds(t, n.Store, c)
			if inTime {
				outcomes["in time"]++
			} else {
				outcomes["undone"]++
			}
		})
	})
	t.Logf("%d interleavings: %v", runs, outcomes)
	if len(outcomes) != 2 {
		t.Error("the interesting cases did not occur")
	}
}

// The PUT itself was held for longer than the objects are safe, and then took place.
func TestUpdateThatTookPlaceTooLateIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &slow{Store: mem.New()}
		c := must[*Cell](t)(Create(t.Context(), st, sample("disk")))
		st.delay = 2 * Grace
		err := c.Publish(t.Context(), began(t, st.Store), next)
		if !errors.Is(err, ErrLate) || c.Current().Barrier.Seq != 99 {
			t.Fatalf("%v, %d", err, c.Current().Barrier.Seq)
		}
		holds(t, st.Store, c)
		st.delay = acceptLimit
		if err := c.Publish(t.Context(), began(t, st.Store), next); err != nil {
			t.Fatal(err)
		}
	})
}

// slow holds PUTs back.
type slow struct {
	*mem.Store
	delay time.Duration
}

func (s *slow) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	time.Sleep(s.delay)
	return s.Store.Put(ctx, key, body, c)
}

// An update that was sent in time and lost is not repeated when it would come too late, even where it could still do no harm.
func TestLostUpdateIsNotRepeatedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{Store: mem.New(), choose: func(int) int { return lost }}
		c := must[*Cell](t)(Create(t.Context(), n, sample("disk")))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		n.faults = 1
		if err := c.Publish(ctx, began(t, n.Store), next); !errors.Is(err, ErrUnsettled) {
			t.Fatal(err)
		}
		time.Sleep(sendLimit + time.Hour)
		if err := c.Replace(t.Context(), func(m *Manifest) { m.Epoch++ }); err != nil {
			t.Fatal(err)
		}
		if m := c.Current(); m.Barrier.Seq != 99 || m.Epoch != 8 {
			t.Fatalf("%+v", m)
		}
		holds(t, n.Store, c)
	})
}

func TestWindowClocks(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name   string
		w      Window
		at     time.Time
		passed bool
	}{
		{"no window", Window{}, now, false},
		{"store's clock", Window{Local: now, Store: now}, now.Add(2 * time.Hour), true},
		{"store's clock, though the local one jumped", Window{Local: now.Add(-time.Hour * 5), Store: now}, now, false},
		{"local clock, the store said nothing", Window{Local: now.Add(-2 * time.Hour)}, now, true},
		{"local clock, the store says nothing", Window{Local: now.Add(-2 * time.Hour), Store: now}, time.Time{}, true},
		{"local clock", Window{Local: now}, time.Time{}, false},
	} {
		if got := c.w.olderThan(time.Hour, c.at); got != c.passed {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
