package store

import (
	"container/list"
	"context"
	"sync"
)

// slots is a semaphore with priorities. With n[k] requests of class k in flight and classes numbered from the highest
// priority down, for every class c
//
//	n[c] + n[c+1] + ... <= ceiling[c]        lower classes leave room for the higher ones
//	n[Guest]            <= guests            guests leave some room too, or uploads would stop under a flood of reads
//
// A slot that comes free goes to the highest class that waits and fits, first come first served within it. No goroutine
// and no timer is behind it.
type slots struct {
	ceiling [NumClasses]int
	guests  int

	mu struct {
		sync.Mutex
		inFlight [NumClasses]int
		waiting  [NumClasses]list.List // of *waiter
	}
}

type waiter struct {
	granted chan struct{} // closed under mu
}

// newSlots shares n slots: all to guests but an eighth, as many to manifests, three quarters to uploads, half to readahead,
// a quarter to compaction, an eighth to what nobody waits for.
func newSlots(n int) *slots {
	n = max(n, 1)
	share := func(num, den int) int { return max(1, n*num/den) }
	return &slots{
		guests: max(1, n-n/8),
		ceiling: [NumClasses]int{
			Guest:      n,
			Manifest:   max(1, n-n/8),
			Upload:     share(3, 4),
			Prefetch:   share(1, 2),
			Compaction: share(1, 4),
			GC:         share(1, 8),
			Admin:      share(1, 8),
		},
	}
}

// acquire waits for a slot of class c until ctx ends.
func (s *slots) acquire(ctx context.Context, c Class) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w, e := s.enter(c)
	if w == nil {
		return nil
	}
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
		s.abandon(c, w, e)
		return ctx.Err()
	}
}

// enter takes a slot (nil) or queues. A class whose requests wait has no room, so nobody is overtaken by his like.
func (s *slots) enter(c Class) (*waiter, *list.Element) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fitsLocked(c) {
		s.mu.inFlight[c]++
		return nil, nil
	}
	w := &waiter{granted: make(chan struct{})}
	return w, s.mu.waiting[c].PushBack(w)
}

func (s *slots) abandon(c Class, w *waiter, e *list.Element) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-w.granted: // too late: the slot is ours, hand it on
		s.mu.inFlight[c]--
		s.grantLocked()
	default:
		s.mu.waiting[c].Remove(e)
	}
}

func (s *slots) release(c Class) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.inFlight[c]--
	s.grantLocked()
}

// +checklocks:s.mu
func (s *slots) grantLocked() {
	for c := range NumClasses {
		queue := &s.mu.waiting[c]
		for queue.Len() > 0 && s.fitsLocked(c) {
			s.mu.inFlight[c]++
			close(queue.Remove(queue.Front()).(*waiter).granted)
		}
	}
}

// fitsLocked tells whether one more request of class c keeps the inequalities.
//
// +checklocks:s.mu
func (s *slots) fitsLocked(c Class) bool {
	if c == Guest && s.mu.inFlight[Guest] >= s.guests {
		return false
	}
	sum := 0
	for k := int(NumClasses) - 1; k >= 0; k-- {
		sum += s.mu.inFlight[k]
		if k <= int(c) && sum >= s.ceiling[k] {
			return false
		}
	}
	return true
}

// load tells how many requests run and wait, by class.
func (s *slots) load() (inFlight, waiting [NumClasses]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range NumClasses {
		waiting[c] = s.mu.waiting[c].Len()
	}
	return s.mu.inFlight, waiting
}
