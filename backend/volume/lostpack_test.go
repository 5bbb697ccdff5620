package volume

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/vfs"
)

// TestLostPacks damages packs, or takes them away, while a disk goes on for hundreds of batches. It is compacted as far as
// one whose packs are sound; what the lost packs held is EIO, all else right, until it is overwritten or the pack is back.
func TestLostPacks(t *testing.T) { testLost(t, false) }

// TestLostPages is that for the pages of levels: nothing of a level whose page is lost can be read or merged.
func TestLostPages(t *testing.T) { testLost(t, true) }

func testLost(t *testing.T, pages bool) {
	total := 0
	try := func(t *testing.T, seed uint64) {
		synctest.Test(t, func(t *testing.T) {
			sound := newLoss(t, seed, 0)
			sound.run(240)
			hurt := newLoss(t, seed, 1+int(seed%2))
			hurt.pages = pages
			hurt.run(240)
			total += hurt.v.Status().Lost
			n := len(hurt.gone)
			switch a, b := sound.most, hurt.most; {
			case b.tail > a.tail+n*smallRun: // a lost pack keeps small neighbours apart
				t.Errorf("%d packs in the tail, %d without damage", b.tail, a.tail)
			case b.levels > (n+1)*a.levels+n:
				t.Errorf("%d levels, %d without damage", b.levels, a.levels)
			case b.packs > (n+1)*a.packs+2*n:
				t.Errorf("%d packs, %d without damage", b.packs, a.packs)
			case b.manifest > (n+1)*a.manifest+256*n:
				t.Errorf("a manifest of %d bytes, %d without damage", b.manifest, a.manifest)
			}
			hurt.heal()
		})
	}
	eachSeed(t, 6*time.Second, try)
	for i := 0; total == 0 && i < 10 && !t.Failed(); i++ { // what is lost is not in the way of each seed, and a slow machine had few
		eachSeed(t, 0, try)
	}
	if total == 0 {
		t.Error("compaction met nothing that is lost: the test has lost its bite")
	}
}

// loss is a disk of which packs get lost.
type loss struct {
	*disk
	t     *testing.T
	r     *rig
	st    *mem.Store
	rng   *rand.Rand
	hits  *rand.Rand
	lose  int
	pages bool              // are lost, not packs
	gone  map[string][]byte // key -> what was there
	stale []byte            // by sector: written before the first loss, and not since
	most  struct{ tail, levels, packs, manifest int }
}

func newLoss(t *testing.T, seed uint64, lose int) *loss {
	l := &loss{t: t, r: newRig(vfs.NewCrash(), "/state"), st: mem.New(), rng: rand.New(rand.NewPCG(seed, 9)),
		hits: rand.New(rand.NewPCG(seed, 10)), lose: lose, gone: map[string][]byte{}}
	l.r.st, l.r.tuning.NoCompaction, l.r.tuning.InlineBytes = l.st, true, []int64{1, 2 << 10}[seed%2]
	l.r.tuning.TailPacks, l.r.tuning.LevelBytes = []int{3, 20}[seed/2%2], 16<<10
	l.r.tuning.BatchBytes = []int64{96 << 10, 4 << 10}[seed/4%2] // small ones make levels of many packs
	l.disk = &disk{witness: newWitness("a", 512, make([]byte, 64<<10))}
	l.stale = make([]byte, len(l.now)/512)
	l.v = l.r.open(t, "a", OpenOptions{Create: int64(len(l.now)), Sector: 512})
	t.Cleanup(func() { l.r.kill(l.v, false) })
	return l
}

// run does n requests, each a batch, and compacts after each.
func (l *loss) run(n int) {
	for i := range n {
		if i == 60 || i == 120 && l.lose > 1 {
			l.loseOne()
		}
		before := bytes.Clone(l.now)
		off, n := l.rng.Int64N(120)*512, 512*(1+l.rng.Int64N(8))
		if l.rng.IntN(5) == 0 {
			off, n = off/2/512*512, int64(len(l.now))/2
		}
		if _, err := l.requestAt(l.rng, off, n, func() {}); err != nil {
			l.t.Fatal(err)
		}
		for s := range l.stale {
			if !bytes.Equal(before[s*512:][:512], l.now[s*512:][:512]) {
				l.stale[s] = 0
			}
		}
		mustSync(l.t, l.v)
		l.v.compactNow(l.t)
		l.measure()
		if i%20 == 0 && len(l.gone) > 0 {
			l.compare()
		}
	}
}

func (l *loss) measure() {
	man, packs := l.v.currentView().man, 0
	for _, r := range man.Levels {
		packs += int(r.Packs)
	}
	_, info, err := l.st.Get(l.t.Context(), manifest.Key("a"), store.Range{})
	if err != nil {
		l.t.Fatal(err)
	}
	m := &l.most
	m.tail, m.levels = max(m.tail, len(man.Tail)), max(m.levels, len(man.Levels))
	m.packs, m.manifest = max(m.packs, len(man.Tail)+packs), max(m.manifest, int(info.Size))
}

// loseOne damages one of the objects that the disk names now, or takes it away; and every other time, for pages always,
// the host, too, that may know what was in it.
func (l *loss) loseOne() {
	switch {
	case l.lose == 0:
		return
	case l.pages:
		l.losePage()
	default:
		l.losePack()
	}
	if l.pages || l.hits.IntN(2) == 0 {
		l.r.kill(l.v, false)
		l.r.fs, l.r.state = vfs.NewCrash(), l.r.state+1
		l.v = l.r.open(l.t, l.name, OpenOptions{Takeover: true})
	}
}

func (l *loss) losePage() {
	var keys []string
	for _, root := range l.v.currentView().man.Levels {
		if root.Packs > 0 && l.gone[root.Key()] == nil {
			keys = append(keys, root.Key())
		}
	}
	if len(keys) == 0 {
		return
	}
	l.spoil(keys[l.hits.IntN(len(keys))], l.hits.IntN(2) == 0)
	for s := range l.stale {
		l.stale[s] = 1
	}
}

func (l *loss) losePack() {
	var refs []pack.Ref
	vw := l.v.currentView()
	for _, s := range vw.tail {
		if s.pack == nil {
			refs = append(refs, s.ref)
		}
	}
	for _, root := range vw.man.Levels {
		below, err := l.v.refs(l.t.Context(), root, 0, ^uint64(0), 1000)
		if err != nil {
			l.t.Fatal(err)
		}
		for _, s := range below {
			refs = append(refs, s.ref)
		}
	}
	refs = slices.DeleteFunc(refs, func(r pack.Ref) bool { return l.gone[r.Hash.Key()] != nil })
	ref := refs[l.hits.IntN(len(refs))]
	l.spoil(ref.Hash.Key(), l.hits.IntN(2) == 0)
	for s := ref.First; s < ref.End; s++ {
		l.stale[s] = 1
	}
}

func (l *loss) spoil(key string, delete bool) {
	body, _, err := l.st.Get(l.t.Context(), key, store.Range{})
	if err != nil {
		l.t.Fatal(err)
	}
	if l.gone[key] = bytes.Clone(body); delete {
		err = l.st.Delete(l.t.Context(), key)
	} else {
		bit := l.hits.IntN(8 * len(body))
		l.st.Tamper(key, func(p []byte) []byte { p[bit/8] ^= 1 << (bit % 8); return p })
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// compare reads sector by sector on a host that has nothing but the store, and returns how many are EIO. Those that Verify
// names only, and of those only what a lost pack may hold.
func (l *loss) compare() (lost int) {
	l.t.Helper()
	cold := newRig(vfs.NewCrash(), "/cold")
	cold.st, cold.tuning.Readahead = l.st, 1
	v := cold.open(l.t, "a", OpenOptions{ReadOnly: true})
	defer cold.close(l.t, v)
	report, err := Verify(l.t.Context(), cold.h, "a", nil)
	if err != nil {
		l.t.Fatal(err)
	}
	p := make([]byte, 512)
	for s := range l.stale {
		off := int64(s) * 512
		err := v.ReadAt(l.t.Context(), p, off)
		switch {
		case err == nil && !bytes.Equal(p, l.now[off:off+512]):
			l.t.Fatalf("sector %d: wrong data", s)
		case err == nil:
		case !errors.Is(err, ErrDamaged) && !errors.Is(err, store.ErrNotFound):
			l.t.Fatalf("sector %d: %v", s, err)
		case l.stale[s] == 0 || !named(report, off, 512):
			l.t.Fatalf("sector %d was not lost: %v", s, err)
		default:
			lost++
		}
	}
	return lost
}

// heal brings some objects back and overwrites the rest.
func (l *loss) heal() {
	lost := l.compare()
	if lost > 0 && l.hits.IntN(2) == 0 {
		for key, body := range l.gone {
			if _, err := l.st.Put(l.t.Context(), key, body, store.Condition{}); err != nil {
				l.t.Fatal(err)
			}
		}
		clear(l.stale)
		l.compare()
		time.Sleep(2 * lostFor)
		l.run(40)
	}
	fillRandom(l.now, l.rng)
	clear(l.stale)
	if err := l.v.WriteAt(l.t.Context(), l.now, 0, false); err != nil {
		l.t.Fatal(err)
	}
	mustSync(l.t, l.v)
	l.compare()
	time.Sleep(2 * lostFor)
	l.v.compactNow(l.t)
	l.compare()
}

// TestLostFrameOverwritten: a pack of which everything that can't be read is overwritten is merged as any other, though
// what is fetched together with the rest is damaged.
func TestLostFrameOverwritten(t *testing.T) {
	r := newRig(vfs.NewCrash(), "/state")
	st := mem.New()
	r.st, r.log, r.tuning.NoCompaction, r.tuning.InlineBytes, r.tuning.TailPacks, r.tuning.BatchBytes = st, 4<<20, true, 1, 1, 1<<20
	d := &disk{witness: newWitness("a", 4096, make([]byte, 512<<10))}
	d.v = r.open(t, "a", OpenOptions{Create: int64(len(d.now))})
	rng := rand.New(rand.NewPCG(1, 2))
	write := func(off, n int64) {
		fillRandom(d.now[off:off+n], rng)
		if err := d.v.WriteAt(t.Context(), d.now[off:off+n], off, false); err != nil {
			t.Fatal(err)
		}
		mustSync(t, d.v)
	}
	write(0, 512<<10)
	s := d.v.currentView().tail[0]
	ix, err := r.h.index(context.Background(), s)
	if err != nil || len(ix.Frames) != 4 {
		t.Fatal(len(ix.Frames), err)
	}
	st.Tamper(s.ref.Hash.Key(), func(p []byte) []byte { p[ix.Frames[1].Off] ^= 1; return p })
	write(128<<10, 128<<10)
	d.v.compactNow(t)
	if n := len(d.v.currentView().tail); n != 0 || d.v.Status().Lost != 0 || r.h.Counters().Damaged != 0 {
		t.Errorf("%d packs in the tail, %+v, %+v", n, d.v.Status(), r.h.Counters())
	}
	elsewhere(t, r, d)
	r.kill(d.v, false)
}

// TestStoreAwayIsNoLoss: an error that may pass ends compaction for now, and no pack is gone around.
func TestStoreAwayIsNoLoss(t *testing.T) {
	for _, err := range []error{store.ErrUnavailable, store.ErrDenied, store.ErrNoBucket, context.DeadlineExceeded, pack.ErrVersion} {
		v := &Volume{}
		if v.goAround(unreadPack(pack.Ref{}, err)) {
			t.Errorf("%v: gone around", err)
		}
	}
}
