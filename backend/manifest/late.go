package manifest

import (
	"context"
	"time"
)

// Window is when the first of an update's new objects was written. The zero Window has no limit.
type Window struct {
	Local time.Time // time.Now() before its PUT
	Store time.Time // store.Info.Modified that the PUT returned; zero if the store did not say
}

const (
	// sendLimit is how old the objects may be when an update is sent, acceptLimit when it takes place. The collector deletes what is
	// older than Grace until Grace/4 after the start of a mark; one that missed the update began before it took place, so what was
	// younger than acceptLimit then is safe from it.
	sendLimit   = Grace / 4
	acceptLimit = Grace - Grace/4
)

// olderThan tells whether the objects have reached that age at the store's time now; by the local clocks if that, or theirs, is not
// known. The local monotonic clock stops while a laptop sleeps, the wall clock may be set: the later one counts.
func (w Window) olderThan(limit time.Duration, now time.Time) bool {
	if w == (Window{}) {
		return false
	}
	if !w.Store.IsZero() && !now.IsZero() {
		return now.Sub(w.Store) > limit
	}
	return time.Since(w.Local) > limit || time.Now().Round(0).Sub(w.Local.Round(0)) > limit
}

// Late tells, by the local clocks, that an update which names the objects must not be sent any more.
func (w Window) Late() bool { return w.olderThan(sendLimit, time.Time{}) }

// expire gives up an update that would come too late. One that was never sent is just forgotten. One that was sent may still
// arrive, so the state before it is sent in its place and under the same condition: one of the two wins, and lookBack knows both.
// The store is asked for its time only before a repetition, so that a healthy update costs one request.
func (c *Cell) expire(ctx context.Context) error {
	b := c.sent[len(c.sent)-1]
	if b.window == (Window{}) {
		return nil
	}
	if b.sends > 0 {
		now, err := c.st.Now(ctx)
		if err != nil || !b.window.olderThan(sendLimit, now) {
			return err
		}
		return c.undo(c.Current())
	}
	if b.window.Late() {
		c.sent = nil
		return ErrLate
	}
	return nil
}

// undo makes the next update one that restores m. It also takes back an update that took place too late, which only the answer
// tells [a virtual machine may be paused between any check and the request]. Its caller was not told yet that it took place, so
// going back is going to an older exact state. It names again what the update dropped; that is there unless a whole mark fell
// between the two requests, where leaving things would surely name objects that are gone.
func (c *Cell) undo(m *Manifest) error {
	if err := c.freeze(m.Clone(), Window{}); err != nil {
		return err
	}
	c.sent[len(c.sent)-1].undo = true
	return nil
}
