package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
)

func TestRetryUntilTheStoreIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := storetest.NewFault(mem.New())
		s := store.NewStack(f, store.StackOptions{})
		body := storetest.Random(1, 5000)
		if _, err := s.Put(t.Context(), "packs/a", body, store.Condition{}); err != nil {
			t.Fatal(err)
		}
		unplugged := f.Unplug()
		time.AfterFunc(time.Hour, unplugged.Remove)
		begin := time.Now()
		got, _, err := s.Get(store.With(t.Context(), store.Guest), "packs/a", store.Range{})
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("after the outage: %v", err)
		}
		if d := time.Since(begin); d > time.Hour+10*time.Second {
			t.Errorf("it took %s to notice that the store is back", d-time.Hour)
		}
		// Every request that got through to the breaker's inside is one per breakFor at most.
		if n := unplugged.Used(); n < 10 || n > 1810 {
			t.Errorf("%d requests in an hour of outage", n)
		}
	})
}

func TestRetryEachOperation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := storetest.NewFault(mem.New())
		s := store.NewRetry(f)
		for i := range 30 {
			mustPut(t, f.Inner(), fmt.Sprintf("a/%02d", i), 10)
		}
		f.Times(3, storetest.Any(), storetest.Unavailable())
		mustPut(t, s, "a/30", 10)
		f.Times(2, storetest.On(store.OpPut, ""), storetest.AnswerLost())
		mustPut(t, s, "a/31", 10)
		f.Times(3, storetest.On(store.OpList, ""), storetest.Unavailable())
		if keys, err := storetest.Keys(t.Context(), s, "", ""); err != nil || len(keys) != 32 {
			t.Errorf("list: %d keys, %v", len(keys), err)
		}
		f.Times(3, storetest.On(store.OpDelete, ""), storetest.RequestLost())
		if err := s.Delete(t.Context(), "a/00"); err != nil {
			t.Error(err)
		}
		if _, _, err := f.Inner().Get(t.Context(), "a/00", store.Range{}); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the deleted object: %v", err)
		}
		f.Times(3, storetest.On(store.OpNow, ""), storetest.Unavailable())
		if _, err := s.Now(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// brokenList fails after each third key, once per place.
type brokenList struct{ store.Store }

func (b brokenList) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		n := 0
		for in, err := range b.Store.List(ctx, prefix, after) {
			if n++; n == 4 {
				yield(store.Info{}, store.ErrUnavailable)
				return
			}
			if !yield(in, err) {
				return
			}
		}
	}
}

func TestRetryListGoesOnWhereItBroke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := mem.New()
		var want []string
		for i := range 20 {
			want = append(want, fmt.Sprintf("a/%02d", i))
			mustPut(t, inner, want[i], 0)
		}
		keys, err := storetest.Keys(t.Context(), store.NewRetry(brokenList{inner}), "a/", "")
		if err != nil || strings.Join(keys, " ") != strings.Join(want, " ") {
			t.Fatalf("%q, %v", keys, err)
		}
	})
}

// TestConditionalPutIsSentOnce: a second one would meet the first one's effect and report a loss.
func TestConditionalPutIsSentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := storetest.NewFault(mem.New())
		s := store.NewStack(f, store.StackOptions{})
		in, err := s.Put(t.Context(), "m", []byte("0"), store.Condition{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			act  storetest.Action
			key  string
			cond store.Condition
			want error
		}{
			{storetest.AnswerLost(), "m", store.Condition{IfMatch: in.ETag}, store.ErrAmbiguous},
			{storetest.AnswerLost(), "n", store.Condition{IfAbsent: true}, store.ErrAmbiguous},
			{storetest.Unavailable(), "o", store.Condition{IfAbsent: true}, store.ErrUnavailable},
		} {
			f.ResetCounts()
			f.Once(storetest.On(store.OpPut, ""), c.act)
			if _, err := s.Put(t.Context(), c.key, []byte("1"), c.cond); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", c.key, err, c.want)
			}
			if n := f.Count(store.OpPut); n != 1 {
				t.Errorf("%s: sent %d times", c.key, n)
			}
		}
	})
}

func TestPermanentErrorsAreNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := storetest.NewFault(mem.New())
		s := store.NewStack(f, store.StackOptions{})
		for _, kind := range []error{store.ErrNotFound, store.ErrDenied, store.ErrNoBucket, store.ErrRange, store.ErrUnsuitable} {
			f.ResetCounts()
			f.Once(storetest.Any(), storetest.Fail(kind))
			if _, _, err := s.Get(t.Context(), "a", store.Range{}); !errors.Is(err, kind) || f.Count() != 1 {
				t.Errorf("%v after %d requests, want %v after 1", err, f.Count(), kind)
			}
		}
		if h := s.Health(); h.State != store.HealthOK {
			t.Errorf("answers make the store %s", h.State)
		}
	})
}

func TestRetryEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := storetest.NewFault(mem.New())
		s := store.NewStack(f, store.StackOptions{})
		f.Unplug()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		begin := time.Now()
		_, _, err := s.Get(store.With(ctx, store.Guest), "a", store.Range{})
		if !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error: %v", err)
		}
		if d := time.Since(begin); d != 30*time.Second {
			t.Errorf("it took %s", d)
		}
	})
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var states []string
		f := storetest.NewFault(mem.New())
		b := store.NewBreaker(f, func(h store.Health) { states = append(states, h.State) })
		get := func() error {
			_, _, err := b.Get(t.Context(), "a", store.Range{})
			return err
		}
		mustPut(t, b, "a", 1)
		unplugged := f.Unplug()
		begin := time.Now()
		for range 5 {
			get()
		}
		h := b.Health()
		if h.State != store.HealthDown || !h.Since.Equal(begin) || !strings.Contains(h.LastError, "unavailable") {
			t.Fatalf("after five failures: %+v", h)
		}
		f.ResetCounts()
		err := get()
		if !errors.Is(err, store.ErrUnavailable) || f.Count() != 0 {
			t.Fatalf("open: %v, %d requests", err, f.Count())
		}
		if want := "store: get a: store unavailable since " + begin.UTC().Format(time.RFC3339) + ", not asked again yet: fault: "; !strings.HasPrefix(err.Error(), want) {
			t.Errorf("message is %v\nwant %s...", err, want)
		}
		time.Sleep(3 * time.Second)
		get()
		get()
		if f.Count() != 1 {
			t.Fatalf("half open let %d requests pass", f.Count())
		}
		unplugged.Remove()
		time.Sleep(3 * time.Second)
		if err := get(); err != nil {
			t.Fatal(err)
		}
		if h := b.Health(); h.State != store.HealthOK || h.LastError != "" {
			t.Fatalf("after an answer: %+v", h)
		}
		if got := strings.Join(states, " "); got != "degraded down ok" {
			t.Errorf("the listener heard %s", got)
		}
	})
}

// TestCancelledRequestsSayNothingAboutTheStore: a guest that goes away does not open the breaker, a hanging store does.
func TestCancelledRequestsSayNothingAboutTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := storetest.NewFault(mem.New())
		b := store.NewBreaker(f, nil)
		f.Always(storetest.Any(), storetest.Hang())
		for range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			b.Get(ctx, "a", store.Range{})
		}
		if h := b.Health(); h.State != store.HealthOK {
			t.Fatalf("cancelled requests made it %s", h.State)
		}
		for range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			b.Get(ctx, "a", store.Range{})
			cancel()
		}
		if h := b.Health(); h.State != store.HealthDown {
			t.Fatalf("a store that hangs is %s", h.State)
		}
		time.Sleep(time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		b.Get(ctx, "a", store.Range{}) // half open
		if h := b.Health(); h.State != store.HealthDown {
			t.Fatalf("a cancelled try made it %s", h.State)
		}
		f.Clear()
		f.Unplug()
		f.ResetCounts()
		for range 2 {
			b.Get(t.Context(), "a", store.Range{})
		}
		if n := f.Count(); n != 1 {
			t.Fatalf("after a cancelled try %d requests passed, want one more try", n)
		}
	})
}

// TestSlowTryKeepsNoGuestOut: when the store is back, the first request to find out may be a pack that takes a minute to send.
func TestSlowTryKeepsNoGuestOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := storetest.NewFault(mem.New())
		b := store.NewBreaker(f, nil)
		mustPut(t, f.Inner(), "a", 1)
		unplugged := f.Unplug()
		for range 5 {
			b.Get(t.Context(), "a", store.Range{})
		}
		unplugged.Remove()
		f.Always(storetest.On(store.OpPut, ""), storetest.Slow(time.Minute))
		time.Sleep(3 * time.Second)
		upload := store.With(t.Context(), store.Upload)
		go b.Put(upload, "packs/a", nil, store.Condition{})
		synctest.Wait()
		if _, err := b.Put(upload, "packs/b", nil, store.Condition{}); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("a second upload tries as well: %v", err)
		}
		if _, _, err := b.Get(store.With(t.Context(), store.Guest), "a", store.Range{}); err != nil {
			t.Errorf("a guest: %v", err)
		}
		if h := b.Health(); h.State != store.HealthOK {
			t.Errorf("the guest was answered, and the store is %s", h.State)
		}
	})
}

// TestReadsGoOnWithoutWrites: a store that is full, or throttles writes, takes nothing from many uploaders that ask again and
// again. Guests get what is there all the while, at once.
func TestReadsGoOnWithoutWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := storetest.NewFault(mem.New())
		s := store.NewStack(f, store.StackOptions{})
		mustPut(t, s, "packs/a", 1)
		f.Always(storetest.On(store.OpPut, ""), storetest.Unavailable())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for i := range 200 {
			go s.Put(store.With(ctx, store.Upload), fmt.Sprintf("packs/%d", i), nil, store.Condition{})
		}
		time.Sleep(time.Minute)
		if h := s.Health(); h.State != store.HealthDown {
			t.Fatalf("the store is %s", h.State)
		}
		for range 100 {
			begin := time.Now()
			if _, _, err := s.Get(store.With(ctx, store.Guest), "packs/a", store.Range{}); err != nil || time.Since(begin) != 0 {
				t.Fatalf("a guest waited %s: %v", time.Since(begin), err)
			}
			time.Sleep(700 * time.Millisecond)
		}
	})
}

// TestWritesFailWhileReadsAreAnswered: a store that is full is up for those who read, and Writes tells those who write
// since when. A small object that it still takes is no answer for packs.
func TestWritesFailWhileReadsAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := storetest.NewFault(mem.New())
		b := store.NewBreaker(f, nil)
		put := func(c store.Class) {
			_, _ = b.Put(store.With(t.Context(), c), "packs/"+c.String(), nil, store.Condition{})
		}
		put(store.Upload)
		if o := b.Writes(); o != (store.Outage{}) {
			t.Fatalf("before any failure: %+v", o)
		}
		full := f.Always(storetest.On(store.OpPut, "packs/upload"), storetest.Unavailable())
		begin := time.Now()
		for range 10 {
			put(store.Upload)
			put(store.Manifest)
			if _, _, err := b.Get(t.Context(), "packs/upload", store.Range{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Second)
		}
		last := begin.Add(9 * 30 * time.Second)
		if h, o := b.Health(), b.Writes(); h.State != store.HealthOK || !o.Since.Equal(begin) || !o.Last.Equal(last) || !strings.Contains(o.LastError, "unavailable") {
			t.Errorf("full since %s: health %+v, writes %+v", begin, h, o)
		}
		time.Sleep(time.Hour)
		if o := b.Writes(); o != (store.Outage{}) {
			t.Errorf("an hour after the last attempt: %+v", o)
		}
		put(store.Upload)
		if o := b.Writes(); !o.Since.Equal(begin) {
			t.Errorf("still full: %+v", o)
		}
		full.Remove()
		put(store.Upload)
		if o := b.Writes(); o != (store.Outage{}) {
			t.Errorf("with room again: %+v", o)
		}
		cancelled, cancel := context.WithCancel(store.With(t.Context(), store.Upload))
		f.Once(storetest.Any(), storetest.Fail(context.Canceled))
		_, _ = b.Put(cancelled, "packs/upload", nil, store.Condition{})
		cancel()
		if o := b.Writes(); o != (store.Outage{}) {
			t.Errorf("a request that its caller gave up: %+v", o)
		}
	})
}
