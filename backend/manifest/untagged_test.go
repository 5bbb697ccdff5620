package manifest

import (
	"context"
	"errors"
	"testing"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
)

// untagged is a store behind a proxy that drops ETags: of PUTs, of GETs.
type untagged struct {
	store.Store
	puts, gets bool
}

func (u *untagged) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	in, err := u.Store.Put(ctx, key, body, c)
	if u.puts {
		in.ETag = ""
	}
	return in, err
}

func (u *untagged) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	body, in, err := u.Store.Get(ctx, key, r)
	if u.gets {
		in.ETag = ""
	}
	return body, in, err
}

// TestAnswersWithoutETag: no answer makes the next PUT an unconditional one, which would overwrite whoever took over.
func TestAnswersWithoutETag(t *testing.T) {
	u := &untagged{Store: mem.New(), puts: true}
	a := must[*Cell](t)(Create(t.Context(), u, sample("disk")))
	if err := a.Replace(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	holds(t, u.Store, a)
	b := must[*Cell](t)(Read(t.Context(), u.Store, "disk"))
	if err := b.Replace(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if err := a.Replace(t.Context(), next); !errors.Is(err, ErrFenced) {
		t.Errorf("the one that was taken over: %v", err)
	}
	holds(t, u.Store, b)
	u.gets = true
	if _, err := Read(t.Context(), u, "disk"); !errors.Is(err, store.ErrUnsuitable) {
		t.Errorf("a manifest whose ETag is not known: %v", err)
	}
	if err := b.Replace(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	b.st = u
	if err := b.Replace(t.Context(), next); !errors.Is(err, ErrUnsettled) || !errors.Is(err, store.ErrUnsuitable) {
		t.Errorf("an update whose ETag is not known: %v", err)
	}
	u.gets = false
	if err := b.Replace(t.Context(), next); err != nil {
		t.Errorf("the ETags are back: %v", err)
	}
	holds(t, u.Store, b)
}
