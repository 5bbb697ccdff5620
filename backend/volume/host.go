package volume

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"glidefs-appliance/backend/cache"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/frontends"
)

// shared is what the volumes of one Host share beyond its fields; made at first use.
type shared struct {
	indexes  indexes
	flights  flights
	batches  *semaphore.Weighted // bytes of batches being built or uploaded
	reads    *semaphore.Weighted // bytes of cold reads
	prefetch chan struct{}       // slots
	merging  chan struct{}       // the slot of compaction: one volume at a time, for its memory
	uploads  atomic.Int64        // volumes with something to upload
	builders [2]builders         // for 512 and 4096
}

func (h *Host) builders(sector int64) *builders {
	if sector == 512 {
		return &h.shared().builders[0]
	}
	return &h.shared().builders[1]
}

// builder returns an empty one that may have memory from before; reuse takes it back.
func (h *Host) builder(sector int64) *pack.Builder {
	if b := h.builders(sector).get(); b != nil {
		return b
	}
	return pack.NewBuilder(int(sector), h.CPU)
}

func (h *Host) reuse(b *pack.Builder, sector int64) {
	b.Reset()
	h.builders(sector).put(b)
}

// builders keeps the memory of those that are not in use, about twice a batch each. While packs follow each other a few
// stay: the garbage collector empties a sync.Pool faster than a batch is built, and a fifth of a build was clearing
// new memory. Once none is in use it may have them all.
type builders struct {
	mu   sync.Mutex
	used int
	warm []*pack.Builder // at most warmBuilders; none when used is 0
	idle sync.Pool       // of *pack.Builder
}

// warmBuilders is how many a volume that uploads without a pause gives back before it takes one again.
const warmBuilders = 2

func (p *builders) get() *pack.Builder {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used++
	if n := len(p.warm); n > 0 {
		b := p.warm[n-1]
		p.warm = p.warm[:n-1]
		return b
	}
	b, _ := p.idle.Get().(*pack.Builder)
	return b
}

func (p *builders) put(b *pack.Builder) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used--; p.used > 0 && len(p.warm) < warmBuilders {
		p.warm = append(p.warm, b)
		return
	}
	p.idle.Put(b)
	if p.used == 0 {
		for _, b := range p.warm {
			p.idle.Put(b)
		}
		p.warm = nil
	}
}

type counters struct {
	damaged, batches, merged, promoted atomic.Uint64
}

// Counters of all volumes of a host since it started, for metrics.
type Counters struct {
	Damaged  uint64 // objects and parts of them that the store should have and that were gone or failed their checksum
	Batches  uint64 // uploaded
	Merges   uint64 // steps of compaction
	Promoted uint64 // frames that went from a log to the clean cache
}

// Counters reads them.
func (h *Host) Counters() Counters {
	return Counters{h.counters.damaged.Load(), h.counters.batches.Load(), h.counters.merged.Load(), h.counters.promoted.Load()}
}

// batchMemory bounds the raw bytes of all batches in work on one host; each costs about twice that while it is built, and
// so do the builders that are kept warm.
const batchMemory = 128 << 20

// readMemory bounds what the cold reads of one host hold at a time, in bytes of frames as stored and as read: while they wait
// for the store they have copies of those neighbours that are in the clean cache. Each disk may have half of it, so that the
// queue for the whole is short, and a flood of reads of one disk keeps no other waiting.
const readMemory = 128 << 20

// prefetchSlots bounds the readahead requests of one host.
const prefetchSlots = 8

func (h *Host) shared() *shared {
	h.once.Do(func() {
		h.Tuning.ensureDefaults()
		if h.CPU == nil {
			h.CPU = make(chan struct{}, max(1, frontends.CPUs/2))
		}
		h.sharedState = &shared{
			batches:  semaphore.NewWeighted(batchMemory),
			reads:    semaphore.NewWeighted(readMemory),
			prefetch: make(chan struct{}, prefetchSlots),
			merging:  make(chan struct{}, 1),
		}
	})
	return h.sharedState
}

func (t *Tuning) ensureDefaults() {
	def := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	if t.UploadAge == 0 {
		t.UploadAge = 10 * time.Second
	}
	if t.ReadTimeout == 0 {
		t.ReadTimeout = 30 * time.Second
	}
	def(&t.BatchBytes, 30<<20)
	def(&t.InlineBytes, 16<<10)
	def(&t.Readahead, 4<<20)
	if t.TailPacks == 0 {
		t.TailPacks = 24
	}
	def(&t.LevelBytes, 4<<30)
}

// requestPace is the least time between two uploads of one host that are due by age alone: with thousands of disks that
// trickle, each waits longer, so that the bill has a bound.
const requestPace = 20 * time.Millisecond

// uploadAge is how old the oldest write of a volume may get before it is uploaded.
func (h *Host) uploadAge() time.Duration {
	return max(h.Tuning.UploadAge, time.Duration(h.shared().uploads.Load())*requestPace)
}

// flights joins concurrent fetches of one object part: one request serves all who ask while it runs.
type flights struct {
	mu sync.Mutex
	m  map[cache.Key]*flight
}

type flight struct {
	class store.Class // of the request
	done  chan struct{}
	data  []byte
	err   error
}

// joinPatience is how long somebody waits for a request of a lower class: that one may wait for its turn as long as there
// are others of his own.
const joinPatience = time.Second

// overdue tells a follower who waits since then when to ask for himself; never if the leader's request comes before his would.
func (fl *flight) overdue(ctx context.Context, since time.Time) <-chan time.Time {
	if fl.class <= store.ClassOf(ctx) {
		return nil
	}
	return time.After(joinPatience - time.Since(since))
}

// join returns the flight for key and whether the caller leads it: a leader must finish it.
func (f *flights) join(ctx context.Context, key cache.Key) (fl *flight, lead bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.m[key]; fl != nil {
		return fl, false
	}
	if f.m == nil {
		f.m = map[cache.Key]*flight{}
	}
	fl = &flight{class: store.ClassOf(ctx), done: make(chan struct{})}
	f.m[key] = fl
	return fl, true
}

func (f *flights) finish(key cache.Key, fl *flight, data []byte, err error) {
	fl.data, fl.err = data, err
	f.mu.Lock()
	delete(f.m, key)
	f.mu.Unlock()
	close(fl.done)
}

// errAbandoned: a panic ended the fetch.
var errAbandoned = errors.New("the fetch was abandoned")

// lead runs the fetch of a flight and finishes it.
func (f *flights) lead(key cache.Key, fl *flight, fetch func() ([]byte, error)) (data []byte, err error) {
	err = errAbandoned
	defer func() { f.finish(key, fl, data, err) }()
	return fetch()
}

// once runs fetch unless one for key runs already, whose result it shares. A follower whose leader failed (its context
// may have ended) fetches itself, and so does one whose caller waits since too long for a request of a lower class.
func (sh *shared) once(ctx context.Context, key cache.Key, since time.Time, fetch func(context.Context) ([]byte, error)) ([]byte, error) {
	for {
		fl, lead := sh.flights.join(ctx, key)
		if lead {
			return sh.flights.lead(key, fl, func() ([]byte, error) { return fetch(ctx) })
		}
		select {
		case <-fl.done:
			if fl.err == nil {
				return fl.data, nil
			}
		case <-fl.overdue(ctx, since):
			return fetch(ctx)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
