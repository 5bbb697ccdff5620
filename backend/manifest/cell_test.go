package manifest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
)

// network loses, repeats and delays requests as choose says, until its faults are used up.
type network struct {
	*mem.Store
	choose func(n int) int
	faults int
	late   []func()         // PUTs that the client gave up and the store has not seen yet
	before func(n *network) // runs before each request, if set
	puts   int
}

// The fates of a PUT.
const (
	fine       = iota
	lost       // the store never sees it
	unanswered // the store does it, the answer is lost
	delayed    // the store does it some time later
	refused    // "come back later"
	fates
)

func (n *network) fate(of int) int {
	if n.before != nil {
		n.before(n)
	}
	for len(n.late) > 0 && n.choose(2) == 1 {
		n.late[0]()
		n.late = n.late[1:]
	}
	if n.faults == 0 {
		return fine
	}
	f := n.choose(of)
	if f != fine {
		n.faults--
	}
	return f
}

func (n *network) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	n.puts++
	switch n.fate(fates) {
	case lost:
		return store.Info{}, store.ErrAmbiguous
	case unanswered:
		n.Store.Put(ctx, key, body, c)
		return store.Info{}, store.ErrAmbiguous
	case delayed:
		n.late = append(n.late, func() { n.Store.Put(context.Background(), key, body, c) })
		return store.Info{}, store.ErrAmbiguous
	case refused:
		return store.Info{}, store.ErrUnavailable
	}
	return n.Store.Put(ctx, key, body, c)
}

func (n *network) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	if n.fate(2) != fine {
		return nil, store.Info{}, store.ErrUnavailable
	}
	return n.Store.Get(ctx, key, r)
}

// deliver lets every late PUT arrive.
func (n *network) deliver() {
	for _, f := range n.late {
		f()
	}
	n.late = nil
}

// next is what a batch does to a manifest.
func next(m *Manifest) { m.Barrier.Seq++ }

// holds checks what the store has.
func holds(t *testing.T, st store.Store, want *Cell) {
	t.Helper()
	raw, _, err := st.Get(t.Context(), Key(want.name), store.Range{})
	if err != nil || !bytes.Equal(raw, want.Raw()) {
		t.Fatalf("the store does not hold what its writer believes (%v)", err)
	}
}

// A single writer over a network that does its worst is never fenced, and each update takes place exactly once.
func TestOneWriterAllInterleavings(t *testing.T) {
	runs := storetest.Explore(func(choose func(int) int) {
		synctest.Test(t, func(t *testing.T) {
			n := &network{Store: mem.New(), choose: choose, faults: 3}
			c := must[*Cell](t)(Create(t.Context(), n, sample("disk")))
			holds(t, n.Store, c)
			for i := range uint64(2) {
				if err := c.Replace(t.Context(), next); err != nil {
					t.Fatal(err)
				}
				holds(t, n.Store, c)
				if got := c.Current().Barrier.Seq; got != 100+i {
					t.Fatalf("update %d took place %d times", i, got-99-i)
				}
			}
			n.deliver()
			holds(t, n.Store, c)
		})
	})
	t.Logf("%d interleavings", runs)
}

// A second writer takes over between any two requests. One of the two wins, the other learns it and who it was, and nothing that the
// loser sent earlier shows up later.
func TestTakeOverAllInterleavings(t *testing.T) {
	with, without := 0, 0
	runs := storetest.Explore(func(choose func(int) int) {
		synctest.Test(t, func(t *testing.T) {
			n := &network{Store: mem.New(), choose: choose}
			a := must[*Cell](t)(Create(t.Context(), n, sample("disk")))
			n.faults = 3
			var b *Cell
			n.before = func(n *network) {
				if b == nil && choose(2) == 1 {
					b = must[*Cell](t)(Read(t.Context(), n.Store, "disk"))
					if err := b.Replace(t.Context(), func(m *Manifest) { m.Owner.Host, m.Since = "beta", time.Unix(9, 0).UTC() }); err != nil {
						t.Fatal(err)
					}
				}
			}
			err := a.Replace(t.Context(), next)
			n.before = nil
			n.deliver()
			if b == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			holds(t, n.Store, b)
			var who *FencedError
			if !errors.As(err, &who) || who.Owner.Host != "beta" || !who.Since.Equal(time.Unix(9, 0)) || who.Gone {
				t.Fatalf("%v", err)
			}
			switch b.Current().Barrier.Seq {
			case 99:
				without++
			case 100: // A's update took place, B built on it, and A heard of both at once
				with++
			default:
				t.Fatalf("%d", b.Current().Barrier.Seq)
			}
			if err := a.Replace(t.Context(), next); !errors.Is(err, ErrFenced) {
				t.Fatalf("the loser can still write: %v", err)
			}
			n.deliver()
			holds(t, n.Store, b)
		})
	})
	t.Logf("%d interleavings, the loser's update took place in %d, not in %d", runs, with, without)
	if with == 0 || without == 0 {
		t.Error("the interesting cases did not occur")
	}
}

// The context ends at any request; the update stays frozen, and the next call settles it before it builds anything.
func TestUnsettledUpdateIsSettledFirst(t *testing.T) {
	unsettled := 0
	storetest.Explore(func(choose func(int) int) {
		synctest.Test(t, func(t *testing.T) {
			n := &network{Store: mem.New(), choose: choose}
			c := must[*Cell](t)(Create(t.Context(), n, sample("disk")))
			n.faults = 2
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond) // the first wait is longer
			defer cancel()
			err := c.Replace(ctx, next)
			holdsOrUnsettled(t, n, c, err)
			if errors.Is(err, ErrUnsettled) {
				unsettled++
			}
			var seen uint64
			if err := c.Replace(t.Context(), func(m *Manifest) { seen = m.Barrier.Seq; m.Epoch++ }); err != nil {
				t.Fatal(err)
			}
			if seen != 100 || c.Current().Barrier.Seq != 100 || c.Current().Epoch != 8 {
				t.Fatalf("built on %d, now %+v", seen, c.Current())
			}
			n.deliver()
			holds(t, n.Store, c)
		})
	})
	if unsettled == 0 {
		t.Error("nothing was left unsettled")
	}
}

func holdsOrUnsettled(t *testing.T, n *network, c *Cell, err error) {
	t.Helper()
	switch {
	case err == nil:
		holds(t, n.Store, c)
	case !errors.Is(err, ErrUnsettled):
		t.Fatal(err)
	case c.Current().Barrier.Seq != 99:
		t.Fatal("Current shows an update that is not settled")
	}
}

// The PUT of a process that died arrives while the next process makes its first. Either wins; the loser of the two is told that it
// was its own state directory.
func TestLatePutOfADeadProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{Store: mem.New(), choose: func(int) int { return delayed }}
		m := sample("disk")
		first := must[*Cell](t)(Create(t.Context(), n, m))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		n.faults = 1
		if err := first.Replace(ctx, next); !errors.Is(err, ErrUnsettled) {
			t.Fatal(err)
		}
		n.choose = func(int) int { return 0 }
		second := must[*Cell](t)(Read(t.Context(), n.Store, "disk"))
		n.deliver()
		var who *FencedError
		if err := second.Replace(t.Context(), next); !errors.As(err, &who) || who.Owner != m.Owner {
			t.Fatalf("%v", err)
		}
		third := must[*Cell](t)(Read(t.Context(), n.Store, "disk"))
		if err := third.Replace(t.Context(), next); err != nil || third.Current().Barrier.Seq != 101 {
			t.Fatalf("%v", err)
		}
	})
}

func TestCreate(t *testing.T) {
	st := mem.New()
	m := sample("disk")
	c := must[*Cell](t)(Create(t.Context(), st, m))
	if _, err := Create(t.Context(), st, m); !errors.Is(err, ErrExists) {
		t.Errorf("again: %v", err)
	}
	holds(t, st, c)
	r := must[*Cell](t)(Read(t.Context(), st, "disk"))
	if !bytes.Equal(r.Raw(), c.Raw()) {
		t.Error("it reads back as something else")
	}
	if _, err := Read(t.Context(), st, "other"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
	m.Size = 1
	m.Name = "bad"
	if _, err := Create(t.Context(), st, m); err == nil {
		t.Error("an impossible manifest was written")
	}
	if _, err := Read(t.Context(), st, "../disk"); err == nil {
		t.Error("an impossible name was read")
	}
}

func TestReadRefusesDamage(t *testing.T) {
	st := mem.New()
	c := must[*Cell](t)(Create(t.Context(), st, sample("disk")))
	if _, err := st.Put(t.Context(), Key("other"), c.Raw(), store.Condition{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(t.Context(), st, "other"); !errors.Is(err, ErrDamaged) {
		t.Errorf("under another name: %v", err)
	}
	st.Tamper(Key("disk"), func(b []byte) []byte { b[40]++; return b })
	if _, err := Read(t.Context(), st, "disk"); !errors.Is(err, ErrDamaged) {
		t.Errorf("a changed byte: %v", err)
	}
}

func TestDeletedVolumeFences(t *testing.T) {
	st := mem.New()
	c := must[*Cell](t)(Create(t.Context(), st, sample("disk")))
	if err := st.Delete(t.Context(), Key("disk")); err != nil {
		t.Fatal(err)
	}
	var who *FencedError
	if err := c.Replace(t.Context(), next); !errors.As(err, &who) || !who.Gone {
		t.Fatalf("%v", err)
	}
}

// A volume that is being deleted fences its writer, is not found, and blocks its name until it is gone.
func TestVolumeBeingDeleted(t *testing.T) {
	st := mem.New()
	writer := must[*Cell](t)(Create(t.Context(), st, sample("disk")))
	c := must[*Cell](t)(ReadToDelete(t.Context(), st, "disk"))
	if err := c.Replace(t.Context(), func(m *Manifest) { m.Deleted = true }); err != nil {
		t.Fatal(err)
	}
	var who *FencedError
	if err := writer.Replace(t.Context(), next); !errors.As(err, &who) || !who.Gone {
		t.Errorf("%v", err)
	}
	if _, err := Read(t.Context(), st, "disk"); !errors.Is(err, store.ErrNotFound) || !errors.Is(err, ErrDeleting) {
		t.Errorf("read: %v", err)
	}
	if _, err := ReadToDelete(t.Context(), st, "disk"); err != nil {
		t.Errorf("read to delete: %v", err)
	}
	if _, err := Create(t.Context(), st, sample("disk")); !errors.Is(err, ErrExists) || !errors.Is(err, ErrDeleting) {
		t.Errorf("create: %v", err)
	}
}

// buried is a store with the tombstone of a disk that c wrote.
func buried(t *testing.T) (st *mem.Store, c *Cell) {
	t.Helper()
	st = mem.New()
	c = must[*Cell](t)(Create(t.Context(), st, sample("disk")))
	if err := c.Replace(t.Context(), (*Manifest).Bury); err != nil {
		t.Fatal(err)
	}
	return st, c
}

// A tombstone is no volume to anybody: it is not found, fences the writer of the volume that was there, and gives its name away.
func TestTombstone(t *testing.T) {
	st, c := buried(t)
	for _, read := range []func(context.Context, store.Store, string) (*Cell, error){Read, ReadToDelete} {
		if _, err := read(t.Context(), st, "disk"); !errors.Is(err, store.ErrNotFound) || errors.Is(err, ErrDeleting) {
			t.Errorf("%v", err)
		}
	}
	anew := must[*Cell](t)(Create(t.Context(), st, sample("disk")))
	holds(t, st, anew)
	var who *FencedError
	if err := c.Replace(t.Context(), next); !errors.As(err, &who) || who.Owner.Host != "alpha" {
		t.Errorf("%v", err)
	}
	if _, err := Create(t.Context(), st, sample("disk")); !errors.Is(err, ErrExists) || errors.Is(err, ErrDeleting) {
		t.Errorf("again: %v", err)
	}
	st, _ = buried(t)
	writer := must[*Cell](t)(Create(t.Context(), st, sample("disk")))
	if err := must[*Cell](t)(Read(t.Context(), st, "disk")).Replace(t.Context(), (*Manifest).Bury); err != nil {
		t.Fatal(err)
	}
	if err := writer.Replace(t.Context(), next); !errors.As(err, &who) || !who.Gone {
		t.Errorf("a writer whose volume was deleted: %v", err)
	}
}

// Two volumes are made in the place of one that was deleted, over a network that does its worst: exactly one comes to be, its maker
// knows, and nothing that is under way changes that.
func TestCreateOverATombstoneAllInterleavings(t *testing.T) {
	won := map[bool]int{}
	runs := storetest.Explore(func(choose func(int) int) {
		synctest.Test(t, func(t *testing.T) {
			st, _ := buried(t)
			n := &network{Store: st, choose: choose, faults: 2}
			var rival *Cell
			n.before = func(n *network) {
				if rival == nil && choose(2) == 1 {
					rival, _ = Create(t.Context(), n.Store, sample("disk"))
				}
			}
			c, err := Create(t.Context(), n, sample("disk"))
			n.before = nil
			if err == nil {
				holds(t, n.Store, c)
				if err := c.Replace(t.Context(), next); err != nil {
					t.Fatal(err)
				}
			} else if rival == nil || !errors.Is(err, ErrExists) || errors.Is(err, ErrDeleting) {
				t.Fatal(err)
			} else {
				c = rival
			}
			won[err == nil]++
			n.deliver()
			holds(t, n.Store, c)
		})
	})
	t.Logf("%d interleavings: %v", runs, won)
	if won[true] == 0 || won[false] == 0 {
		t.Error("the interesting cases did not occur")
	}
}

// Bytes that are no manifest do not fence: they say nothing of who wrote last.
func TestDamageDoesNotFence(t *testing.T) {
	st := mem.New()
	c := must[*Cell](t)(Create(t.Context(), st, sample("disk")))
	good := bytes.Clone(c.Raw())
	if _, err := st.Put(t.Context(), Key("disk"), []byte("rubbish"), store.Condition{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Replace(t.Context(), next); !errors.Is(err, ErrUnsettled) || !errors.Is(err, ErrDamaged) {
		t.Fatalf("%v", err)
	}
	if _, err := st.Put(t.Context(), Key("disk"), good, store.Condition{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Replace(t.Context(), next); err != nil || c.Current().Barrier.Seq != 101 {
		t.Fatalf("%v, %d", err, c.Current().Barrier.Seq)
	}
}

func TestInvalidUpdateIsNotSent(t *testing.T) {
	n := &network{Store: mem.New()}
	c := must[*Cell](t)(Create(t.Context(), n, sample("disk")))
	for _, change := range []func(m *Manifest){
		func(m *Manifest) { m.Size++ },
		func(m *Manifest) { m.Name = "other" },
	} {
		if err := c.Replace(t.Context(), change); err == nil || n.puts != 1 {
			t.Fatalf("%v, %d requests", err, n.puts)
		}
	}
	if err := c.Replace(t.Context(), next); err != nil {
		t.Fatal(err)
	}
}

func TestReplaceTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := must[*Cell](t)(Create(t.Context(), mem.New(), sample("disk")))
		for range 20 {
			go func() {
				if err := c.Replace(t.Context(), next); err != nil {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		if got := c.Current().Barrier.Seq; got != 119 {
			t.Fatalf("%d", got)
		}
		c.turn <- struct{}{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Replace(ctx, next); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("waiting for a turn: %v", err)
		}
	})
}

// A denied PUT is not repeated in a loop, and is not forgotten either.
func TestDeniedUpdateStaysFrozen(t *testing.T) {
	st := &denied{Store: mem.New()}
	c := must[*Cell](t)(Create(t.Context(), st, sample("disk")))
	st.err = fmt.Errorf("put: %w", store.ErrDenied)
	if err := c.Replace(t.Context(), next); !errors.Is(err, ErrUnsettled) || !errors.Is(err, store.ErrDenied) {
		t.Fatalf("%v", err)
	}
	st.err = nil
	if err := c.Replace(t.Context(), next); err != nil || c.Current().Barrier.Seq != 101 {
		t.Fatalf("%v", err)
	}
}

type denied struct {
	*mem.Store
	err error
}

func (d *denied) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	if d.err != nil {
		return store.Info{}, d.err
	}
	return d.Store.Put(ctx, key, body, c)
}
