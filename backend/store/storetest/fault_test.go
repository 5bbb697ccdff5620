package storetest

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
)

func object(t *testing.T, s store.Store, key string) string {
	t.Helper()
	body, _, err := s.Get(t.Context(), key, store.Range{})
	if errors.Is(err, store.ErrNotFound) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestFaultsOfPut(t *testing.T) {
	for name, c := range map[string]struct {
		act     Action
		want    error
		applied string
	}{
		"unavailable":  {Unavailable(), store.ErrUnavailable, ""},
		"answer lost":  {AnswerLost(), store.ErrAmbiguous, "body"},
		"request lost": {RequestLost(), store.ErrAmbiguous, ""},
		"reset":        {ResetAfter(2), store.ErrUnavailable, ""},
		"late":         {Late(), store.ErrAmbiguous, ""},
	} {
		f := NewFault(mem.New())
		rule := f.Once(On(store.OpPut, "a/"), c.act)
		put(t, f, "b", []byte("other keys pass"), store.Condition{})
		_, err := f.Put(t.Context(), "a/x", []byte("body"), store.Condition{})
		if !errors.Is(err, c.want) || object(t, f, "a/x") != c.applied || rule.Used() != 1 {
			t.Errorf("%s: %v, stored %q, used %d times", name, err, object(t, f, "a/x"), rule.Used())
		}
		put(t, f, "a/x", []byte("the rule is spent"), store.Condition{})
	}
}

// TestLatePut: it is judged when it arrives, which may be after its own retry.
func TestLatePut(t *testing.T) {
	f := NewFault(mem.New())
	one := put(t, f, "m", []byte("one"), store.Condition{})
	f.Times(2, On(store.OpPut, "m"), Late())
	for range 2 {
		_, err := f.Put(t.Context(), "m", []byte("two"), store.Condition{IfMatch: one.ETag})
		wantErr(t, err, store.ErrAmbiguous)
	}
	if got := object(t, f, "m"); got != "one" {
		t.Fatalf("a PUT under way is visible: %q", got)
	}
	answers := f.ApplyLate(t.Context())
	if len(answers) != 2 || answers[0] != nil || !errors.Is(answers[1], store.ErrPrecondition) {
		t.Fatalf("answers %v", answers)
	}
	if got := object(t, f, "m"); got != "two" {
		t.Fatalf("applied late: %q", got)
	}
}

func TestFaultsOfGet(t *testing.T) {
	f := NewFault(mem.New())
	body := []byte("0123456789")
	put(t, f, "a", body, store.Condition{})
	f.Once(Any(), ShortBody())
	_, _, err := f.Get(t.Context(), "a", store.Range{})
	wantErr(t, err, store.ErrUnavailable)
	f.Once(Any(), FlipBit(9))
	got, _ := get(t, f, "a", store.Range{})
	if bytes.Equal(got, body) || got[1] != '1'^2 {
		t.Errorf("flipped: %q", got)
	}
	f.Once(Any(), Truncate(3))
	if got, _ := get(t, f, "a", store.Range{}); string(got) != "012" {
		t.Errorf("truncated: %q", got)
	}
	if got, _ := get(t, f, "a", store.Range{}); !bytes.Equal(got, body) {
		t.Errorf("without rules: %q", got)
	}
}

func TestStaleLists(t *testing.T) {
	f := NewFault(mem.New())
	put(t, f, "a/1", nil, store.Condition{})
	if err := f.FreezeLists(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, f, "a/2", nil, store.Condition{})
	if err := f.Delete(t.Context(), "a/1"); err != nil {
		t.Fatal(err)
	}
	wantKeys(t, f, "a/", "", "a/1")
	f.ThawLists()
	wantKeys(t, f, "a/", "", "a/2")
}

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFault(mem.New())
		g := f.Gate(On(store.OpPut, ""))
		errs := make(chan error, 3)
		send := func(ctx context.Context, key string) {
			go func() {
				_, err := f.Put(ctx, key, nil, store.Condition{})
				errs <- err
			}()
		}
		send(t.Context(), "released")
		send(t.Context(), "failed")
		for range 2 {
			if h := <-g.C; h.Key == "failed" {
				h.Fail(store.ErrUnavailable)
				wantErr(t, <-errs, store.ErrUnavailable)
			} else {
				h.Release()
				if err := <-errs; err != nil {
					t.Fatal(err)
				}
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		send(ctx, "timed-out")
		<-g.C
		err := <-errs
		wantErr(t, err, store.ErrAmbiguous)
		wantErr(t, err, context.DeadlineExceeded)
		send(t.Context(), "opened")
		h := <-g.C
		g.Open()
		if err := <-errs; err != nil || h.Op != store.OpPut {
			t.Fatal(err)
		}
		wantKeys(t, f, "", "", "opened", "released")
	})
}

func TestHangAndSlowEndWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFault(mem.New())
		for _, act := range []Action{Hang(), Slow(time.Hour)} {
			f.Once(Any(), act)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			begin := time.Now()
			_, _, err := f.Get(ctx, "a", store.Range{})
			cancel()
			wantErr(t, err, context.DeadlineExceeded)
			if time.Since(begin) != time.Second {
				t.Errorf("it took %s", time.Since(begin))
			}
		}
	})
}

func TestCounts(t *testing.T) {
	f := NewFault(mem.New())
	upload := store.With(t.Context(), store.Upload)
	f.Put(upload, "a", []byte("xyz"), store.Condition{IfAbsent: true})
	f.Get(t.Context(), "a", store.Range{Off: 1, Len: 1})
	f.Unplug()
	f.Get(t.Context(), "a", store.Range{})
	if f.Count() != 3 || f.Count(store.OpGet) != 2 || f.Counts()[store.Upload][store.OpPut] != 1 {
		t.Errorf("counted %d, %d gets, %v", f.Count(), f.Count(store.OpGet), f.Counts())
	}
	if q := f.Log()[0]; q.Size != 3 || !q.Cond.IfAbsent || q.String() != "put a (upload)" {
		t.Errorf("the log says %+v", q)
	}
	f.ResetCounts()
	if f.Count() != 0 || len(f.Log()) != 0 {
		t.Error("not reset")
	}
}
