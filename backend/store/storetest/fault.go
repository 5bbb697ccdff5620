package storetest

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"glidefs-appliance/backend/store"
)

// Fault is a Store that fails by script and counts what it is asked. Faults are rules: a request takes the first rule
// that matches it and has uses left. What a rule does is what an implementation would make of that fault: a short body,
// say, arrives as store.ErrUnavailable. Everything in it is channels, timers and mutexes: it works inside synctest.
type Fault struct {
	inner store.Store

	mu struct {
		sync.Mutex
		rules  []*Rule
		counts [store.NumClasses][store.NumOps]int
		log    []Request
		late   []latePut
		stale  map[string]store.Info // nil: lists are fresh
	}
}

// NewFault returns a Store without faults around inner.
func NewFault(inner store.Store) *Fault { return &Fault{inner: inner} }

// Request is one call of a Store method (of List: one for the whole iteration).
type Request struct {
	Op    store.Op
	Key   string // of List: the prefix
	Class store.Class
	Cond  store.Condition // of Put
	Range store.Range     // of Get
	Size  int             // of Put: bytes of the body
}

func (r Request) String() string { return fmt.Sprintf("%s %s (%s)", r.Op, r.Key, r.Class) }

// Inner is the store behind: tests look at what is really stored, or act as another host.
func (f *Fault) Inner() store.Store { return f.inner }

func (f *Fault) URL() string { return f.inner.URL() }

func (f *Fault) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	q := Request{Op: store.OpGet, Key: key, Class: store.ClassOf(ctx), Range: r}
	act, err := f.arrive(ctx, q)
	if err != nil {
		return nil, store.Info{}, err
	}
	if act.get != nil {
		return act.get(f, ctx, q)
	}
	return f.inner.Get(ctx, key, r)
}

func (f *Fault) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	q := Request{Op: store.OpPut, Key: key, Class: store.ClassOf(ctx), Cond: c, Size: len(body)}
	act, err := f.arrive(ctx, q)
	if err != nil {
		return store.Info{}, err
	}
	if act.put != nil {
		return act.put(f, ctx, q, body)
	}
	return f.inner.Put(ctx, key, body, c)
}

func (f *Fault) Delete(ctx context.Context, key string) error {
	q := Request{Op: store.OpDelete, Key: key, Class: store.ClassOf(ctx)}
	act, err := f.arrive(ctx, q)
	if err != nil {
		return err
	}
	if act.del != nil {
		return act.del(f, ctx, q)
	}
	return f.inner.Delete(ctx, key)
}

func (f *Fault) Now(ctx context.Context) (time.Time, error) {
	if _, err := f.arrive(ctx, Request{Op: store.OpNow, Class: store.ClassOf(ctx)}); err != nil {
		return time.Time{}, err
	}
	return f.inner.Now(ctx)
}

func (f *Fault) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		q := Request{Op: store.OpList, Key: prefix, Class: store.ClassOf(ctx)}
		if _, err := f.arrive(ctx, q); err != nil {
			yield(store.Info{}, err)
			return
		}
		f.list(ctx, prefix, after)(yield)
	}
}

// arrive counts q and runs the part of its rule that comes before the request proper.
func (f *Fault) arrive(ctx context.Context, q Request) (Action, error) {
	act := f.note(q)
	if act.before == nil {
		return act, nil
	}
	return act, act.before(f, ctx, q)
}

func (f *Fault) note(q Request) Action {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.counts[q.Class][q.Op]++
	f.mu.log = append(f.mu.log, q)
	for _, r := range f.mu.rules {
		if r.takeLocked(q) {
			return r.do
		}
	}
	return Action{}
}

// Count is the number of requests of these operations so far, of all operations if none is given.
func (f *Fault) Count(ops ...store.Op) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, q := range f.mu.log {
		if len(ops) == 0 {
			n++
		}
		for _, op := range ops {
			if q.Op == op {
				n++
			}
		}
	}
	return n
}

// Counts is the number of requests so far by class and operation.
func (f *Fault) Counts() [store.NumClasses][store.NumOps]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.counts
}

// Log is every request so far in order of arrival.
func (f *Fault) Log() []Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Request(nil), f.mu.log...)
}

// ResetCounts forgets the counts and the log.
func (f *Fault) ResetCounts() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.log, f.mu.counts = nil, [store.NumClasses][store.NumOps]int{}
}
