package volume

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/vfs"
)

// journal is a store that remembers every change and when it took place, counted in changes of the local disk.
type journal struct {
	*mem.Store
	clock func() int

	mu      sync.Mutex
	changes []storeChange
}

// storeChange took place after the disk's change number `after` at the earliest and before number `before` at the latest.
type storeChange struct {
	key           string
	body          []byte // nil: deleted
	after, before int
}

func newJournal(from map[string][]byte, clock func() int) *journal {
	j := &journal{Store: mem.New(), clock: clock}
	for key, body := range from {
		j.changes = append(j.changes, storeChange{key: key, body: body})
		if _, err := j.Store.Put(context.Background(), key, body, store.Condition{}); err != nil {
			panic(err)
		}
	}
	return j
}

func (j *journal) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	ch := storeChange{key: key, body: append([]byte{}, body...), after: j.clock()}
	info, err := j.Store.Put(ctx, key, body, c)
	if ch.before = j.clock(); err == nil {
		j.changes = append(j.changes, ch)
	}
	return info, err
}

func (j *journal) Delete(ctx context.Context, key string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	ch := storeChange{key: key, after: j.clock()}
	err := j.Store.Delete(ctx, key)
	if ch.before = j.clock(); err == nil {
		j.changes = append(j.changes, ch)
	}
	return err
}

func (j *journal) snapshot() []storeChange {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.changes[:len(j.changes):len(j.changes)]
}

// at is what the store may hold at the instant when the local disk has seen k changes.
func (j *journal) at(k int, rng *rand.Rand) map[string][]byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	least, most := 0, 0
	for most < len(j.changes) && j.changes[most].after <= k {
		if most++; j.changes[most-1].before < k {
			least = most
		}
	}
	return objects(j.changes[:least+rng.IntN(most-least+1)])
}

func objects(changes []storeChange) map[string][]byte {
	m := map[string][]byte{}
	for _, ch := range changes {
		if m[ch.key] = ch.body; ch.body == nil {
			delete(m, ch.key)
		}
	}
	return m
}

// life is one run of a daemon with two disks, on a local disk and a store that remember everything.
type life struct {
	t     *testing.T
	rng   *rand.Rand
	fs    *vfs.Crash
	boot  string
	st    *journal
	r     *rig
	disks []*lived
	ready int // changes of the local disk when the disks were open
	past  string
}

// lived is a disk in one life. Promises are in the order in which they were made.
type lived struct {
	disk
	begun, acked, durable []promise
	seqs                  []uint64 // of the log after each request, where a test keeps them
	// What the disk may be until this life has opened it is up to the life before: after request lo to hi of that one,
	// after a power cut loCut to hi.
	before        *witness
	lo, loCut, hi int
}

// promise: from change `at` of the local disk on, the disk is at or after request m (begun: may be).
type promise struct{ at, m int }

func latest(ps []promise, at, otherwise int) int {
	for i := len(ps) - 1; i >= 0; i-- {
		if ps[i].at <= at {
			return ps[i].m
		}
	}
	return otherwise
}

const crashSectors = 64

func crashRig(fs *vfs.Crash, st store.Store, boot string) *rig {
	r := newRig(fs, "/state")
	r.st, r.boot, r.log, r.cache = st, boot, 6*64<<10, 1<<20
	r.tuning.BatchBytes = 48 << 10
	return r
}

// firstLife creates two disks with sectors of these sizes.
func firstLife(t *testing.T, rng *rand.Rand, sectors ...int) *life {
	l := &life{t: t, rng: rng, fs: vfs.NewCrash(), boot: "boot"}
	l.st = newJournal(nil, l.fs.Ops)
	for i, name := range []string{"a", "b"} {
		sector := sectors[i]
		d := &lived{disk: disk{witness: newWitness(name, sector, make([]byte, crashSectors*sector))}}
		d.before = d.witness
		l.disks = append(l.disks, d)
	}
	l.open()
	return l
}

// next is the life after this one ended at change k of the local disk, by a power cut or by kill -9.
func (l *life) next(k int, cut bool) *life {
	n := &life{t: l.t, rng: l.rng, boot: l.boot, past: l.where(k) + fmt.Sprintf("\nended there, power cut: %v\n", cut)}
	if cut {
		n.fs, n.boot = l.fs.CutAt(k, l.rng), l.boot+"+"
	} else {
		n.fs = l.fs.KillAt(k)
	}
	n.st = newJournal(l.st.at(k, l.rng), n.fs.Ops)
	for _, d := range l.disks {
		nd := &lived{before: d.witness, lo: d.floor(l, k, cut), loCut: d.floor(l, k, true), hi: d.ceiling(l, k)}
		nd.disk.witness = d.witness
		if k < l.ready {
			nd.before = d.before
		}
		n.disks = append(n.disks, nd)
	}
	return n
}

// floor is the least request that must be there when the life ended at change k.
func (d *lived) floor(l *life, k int, cut bool) int {
	switch {
	case k < l.ready && cut:
		return d.loCut
	case k < l.ready:
		return d.lo
	case cut:
		return latest(d.durable, k, 0)
	default:
		return latest(d.acked, k, 0)
	}
}

func (d *lived) ceiling(l *life, k int) int {
	if k < l.ready {
		return d.hi
	}
	return latest(d.begun, k, 0)
}

// open attaches the disks and finds out what they are. Every sector must be as after some prefix of the requests.
func (l *life) open() {
	l.r = crashRig(l.fs, l.st, l.boot)
	for _, d := range l.disks {
		size := int64(len(d.before.now))
		d.v = l.r.open(l, d.before.name, OpenOptions{Create: size, Sector: d.before.sector})
	}
	for _, d := range l.disks {
		got, err := d.content()
		if err != nil {
			l.Fatalf("read %s: %v", d.before.name, err)
		}
		if _, err := d.before.match(got, d.lo, d.hi, false); err != nil {
			l.Fatalf("%v", err)
		}
		d.witness = newWitness(d.before.name, d.before.sector, got)
	}
	l.ready = l.fs.Ops()
}

// run does n random things and ends the life's processes. What they had in hand goes on until then, as it would.
func (l *life) run(n int) {
	for range n {
		l.step(l.disks[l.rng.IntN(len(l.disks))])
	}
}

func (l *life) step(d *lived) {
	m := d.last()
	var err error
	switch k := l.rng.IntN(20); {
	case k < 15:
		durable := false
		durable, err = d.request(l.rng, func() { d.begun = append(d.begun, promise{l.fs.Ops(), d.last()}) })
		at := l.fs.Ops()
		if d.acked = append(d.acked, promise{at, d.last()}); durable {
			d.durable = append(d.durable, promise{at, d.last()})
		}
	case k < 19:
		err = d.v.Flush(context.Background())
		d.durable = append(d.durable, promise{l.fs.Ops(), m})
	default:
		err = d.v.Sync(context.Background(), nil)
		d.durable = append(d.durable, promise{l.fs.Ops(), m})
	}
	if err != nil {
		l.Fatalf("%s: %v", d.what[d.last()], err)
	}
}

func (l *life) end() {
	for _, d := range l.disks {
		if d.v != nil {
			d.v.Kill(ErrClosed)
		}
	}
	_ = l.r.c.Close()
}

// elsewhere uploads everything, loses the machine and opens the disks from the store: they are the same.
func (l *life) elsewhere() {
	for _, d := range l.disks {
		mustSync(l, d.v)
	}
	l.end()
	l.r = crashRig(vfs.NewCrash(), l.st, "other")
	l.r.state++
	for _, d := range l.disks {
		d.v = l.r.open(l, d.name, OpenOptions{Takeover: true})
		got, err := d.content()
		if err == nil {
			_, err = d.match(got, d.last(), d.last(), true)
		}
		if err != nil {
			l.Fatalf("elsewhere: %v", err)
		}
	}
}

func (l *life) Helper() { l.t.Helper() }

// Fatalf makes life a tb that says where in the local disk's changes it is.
func (l *life) Fatalf(format string, args ...any) {
	l.t.Helper()
	l.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), l.where(l.fs.Ops()))
}

// where tells the life's story up to change k.
func (l *life) where(k int) string {
	log := l.fs.Log()[:k]
	return fmt.Sprintf("%slocal disk after %d changes, the last:\n\t%s", l.past, len(log), strings.Join(log[max(0, len(log)-12):], "\n\t"))
}

// TestPowerCut cuts the power, and kills the process, after every change of the local disk in random workloads, and again
// during and after each recovery (P2, P3). Each disk must be as some prefix of its requests has left it, at or after the
// last FLUSH; after a kill at or after the last request acknowledged. What one recovery has shown, a second cut may not
// take back.
func TestPowerCut(t *testing.T) {
	eachSeed(t, 20*time.Second, func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 0))
		l := firstLife(t, rng, 512<<(3*rng.IntN(2)), 4096)
		l.run(200)
		l.end()
		t.Logf("seed %d: %d changes", seed, l.fs.Ops())
		for k := range l.fs.Ops() + 1 {
			after(l, k, rng.IntN(4) > 0)
		}
	})
}

func after(l *life, k int, cut bool) {
	n := l.next(k, cut)
	n.open()
	defer n.end()
	switch l.rng.IntN(8) {
	case 0:
		n.elsewhere()
	case 1, 2: // again, during the recovery
		n.end()
		m := n.next(n.fs.Ops()-l.rng.IntN(n.fs.Ops()-min(k, n.ready)+1), l.rng.IntN(2) > 0)
		m.open()
		m.end()
	case 3, 4: // and some time after it
		n.run(8)
		n.end()
		m := n.next(n.ready+l.rng.IntN(n.fs.Ops()-n.ready+1), l.rng.IntN(3) > 0)
		m.open()
		m.end()
	}
}
