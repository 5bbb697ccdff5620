package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
)

// Compaction keeps reads short and gives space back. It never runs in the write path and takes one of four steps at a
// time, the first that is due:
//
//  1. small: a run of small neighbours in the tail becomes one pack of the tail, so that a disk that trickles does not
//     rewrite a level for a few KiB;
//  2. tail: the whole tail (but for inline packs at its head) goes into level 0, together with the packs of level 0 it
//     overlaps. Done range by range; the tail's packs stay until the last range is in, hiding what is equal to them;
//  3. waste: where discards hide much, the tail goes down with its inline packs, and its zeros to the last level;
//  4. level: a level over its size gives packs to the next.
//
// A pack that is gone from the store or damaged (lostObjects) stays where it is, and so does the order of what is above and
// below it:
//
//   - in the tail: what is older goes down first, and then it goes itself, as it is, into level 0 or a level of its own;
//   - in a level: what would have to be merged with it goes into a new level right above.
//
// So does a level of which a map page is gone or damaged: nobody knows any more what it has. Zeros above it stay, as they
// may hide some of that.
//
// So what is lost parts the levels in two, above and below; each part is compacted as if it were alone, and a disk takes at
// most twice the room. Nothing marks such levels: once the object can be read, or the pack is overwritten, merges take it
// along.
// Rejected: packs that refer to frames of others would keep one set of levels, but a pack whose index is lost too can't be
// referred to, and every reader and the collector would have to know of it.

// smallRun is how many small neighbours in the tail make a merge worth its requests.
const smallRun = 8

// smallSteps are the sizes, in bytes, up to which a pack counts as small: merging by eights within a step rewrites a byte
// at most once a step.
var smallSteps = [...]uint32{256 << 10, 2 << 20, 12 << 20}

// compactSoon starts compaction in the background if a step is due and none runs.
func (v *Volume) compactSoon() {
	if v.host.Tuning.NoCompaction || v.nextStep() == nil || !v.compacting.CompareAndSwap(false, true) {
		return
	}
	if !v.spawn(func() {
		defer v.compacting.Store(false)
		slot := v.host.shared().merging
		select {
		case slot <- struct{}{}:
			defer func() { <-slot }()
		case <-v.ctx.Done():
			return
		}
		if err := v.compact(store.With(v.ctx, store.Compaction)); err != nil && v.ctx.Err() == nil {
			v.host.Log.Warn("compaction stopped", "disk", v.name, "err", err)
		}
	}) {
		v.compacting.Store(false)
	}
}

// compact takes steps until none is due.
func (v *Volume) compact(ctx context.Context) error {
	for ctx.Err() == nil {
		_, err := v.catchUp(ctx) // else a step would be about what an update has replaced
		step := v.nextStep()
		if err == nil && step == nil {
			return nil
		}
		if err == nil {
			err = step(ctx)
		}
		if v.goAround(err) {
			continue
		} else if err != nil {
			var fenced *manifest.FencedError
			if errors.As(err, &fenced) {
				v.die(fmt.Errorf("%w: %w", ErrFenced, err))
			}
			return err
		}
		v.host.counters.merged.Add(1)
		if v.host.Merged != nil {
			v.host.Merged()
		}
	}
	return nil
}

// nextStep chooses the step that is due, nil if none is.
func (v *Volume) nextStep() func(context.Context) error {
	vw := v.currentView()
	skip := leadingInlines(vw.tail)
	raw := uint64(v.host.Tuning.BatchBytes / smallShare / v.sector)
	if lo, hi := smallNeighbours(vw.tail[skip:], raw, v.lost.has); lo < hi {
		return func(ctx context.Context) error { return v.mergeSmall(ctx, vw, skip+lo, skip+hi) }
	}
	if len(vw.tail)-skip > v.host.Tuning.TailPacks {
		return func(ctx context.Context) error { return v.mergeDown(ctx, vw, skip) }
	}
	if v.host.wasteful(vw) {
		return func(ctx context.Context) error { return v.mergeWaste(ctx, vw) }
	}
	limit := uint64(v.host.Tuning.LevelBytes)
	_, lost := v.lost.total() // these can't go
	for i, l := range vw.man.Levels {
		if l.Bytes > limit+lost && !v.lost.hasLevel(l) {
			return func(ctx context.Context) error { return v.mergeLevel(ctx, vw, i) }
		}
		limit *= 8
	}
	return nil
}

// wasteful tells whether discards in the tail hide enough of what is below to be worth a merge: a quarter of it.
func (h *Host) wasteful(vw *view) bool {
	zeros, below := uint64(0), uint64(0)
	for _, l := range vw.man.Levels {
		below += l.Sectors
	}
	for _, s := range vw.tail {
		below += s.ref.Sectors
		zeros += h.zeros(s)
	}
	floor := uint64(h.Tuning.BatchBytes/wasteShare) / uint64(vw.man.Sector)
	return below > floor && min(zeros, below) > below/4
}

// wasteShare: below this part of a full pack a disk's garbage isn't worth a merge.
const wasteShare = 4

// smallShare: a small pack holds at most this part of a full one's raw data. Merges cut their packs by that, so eight that
// are small only because they compress well would become eight again, for ever.
const smallShare = 4

// smallNeighbours returns the oldest run of at least smallRun neighbours that are small, for the smallest such size; raw is
// the most sectors they may hold. There is no lost one among them.
func smallNeighbours(tail []source, raw uint64, lost func(source) bool) (lo, hi int) {
	for _, most := range smallSteps {
		for hi = len(tail); hi > 0; hi = lo {
			lo = hi
			for lo > 0 && tail[lo-1].ref.Size <= most && tail[lo-1].ref.Sectors <= raw && !lost(tail[lo-1]) {
				lo--
			}
			if hi-lo >= smallRun {
				return max(lo, hi-2*smallRun), hi
			}
			if lo == hi {
				lo--
			}
		}
	}
	return 0, 0
}

// mergeSmall replaces tail[lo:hi] by one pack. They are neighbours, and only batches are put before them.
func (v *Volume) mergeSmall(ctx context.Context, vw *view, lo, hi int) error {
	old := vw.tail[lo:hi]
	m := merger{host: v.host, sector: v.sector, packs: old}
	m.dead = func(first, end uint64) bool { return !vw.knows(hi, first, end) }
	out := output{v: v}
	if err := out.write(ctx, &m, 0, ^uint64(0)); err != nil {
		return err
	}
	defer v.lost.forget(old)
	return out.publish(ctx, func(next *manifest.Manifest) error {
		at := slices.IndexFunc(next.Tail, func(t manifest.TailEntry) bool { return t.Ref.Hash == old[0].ref.Hash })
		entries := make([]manifest.TailEntry, len(out.refs))
		for i, r := range out.refs {
			entries[i].Ref = r
		}
		next.Tail = slices.Replace(next.Tail, at, at+len(old), entries...)
		return nil
	})
}

// mergeStep is how many packs of a level one step of a merge rewrites: it bounds the work between two manifests.
const mergeStep = 8

// mergeDown moves the oldest packs of the tail, of those from entry skip on, into level 0, range by range: all that are
// older than the oldest lost one, as a rule. They leave the tail with the last range.
func (v *Volume) mergeDown(ctx context.Context, vw *view, skip int) error {
	tail := vw.tail[skip:]
	if i := v.lost.oldest(tail); i >= 0 && i == len(tail)-1 {
		return v.park(ctx, tail[i])
	} else if i >= 0 {
		tail = tail[i+1:]
	}
	tail = tail[max(0, len(tail)-mergeTails*v.host.Tuning.TailPacks):]
	first, end := bounds(tail)
	for first < end {
		mg := merge{v: v, uppers: tail, into: 0, lo: first, hi: end}
		if err := mg.collect(ctx); err != nil {
			return err
		}
		last := mg.hi >= end
		err := mg.run(ctx, func(next *manifest.Manifest) error {
			if last {
				next.Tail = without(next.Tail, tail)
			}
			return nil
		})
		if err != nil {
			return err
		}
		first = mg.hi
	}
	return nil
}

// mergeTails bounds what a merge of the tail holds in memory, as a multiple of Tuning.TailPacks.
const mergeTails = 2

// park moves a lost pack, the oldest of the tail, into level 0 as it is, or, where that has something already, above it.
func (v *Volume) park(ctx context.Context, s source) error {
	out := output{v: v, w: manifest.Window{Local: time.Now()}}
	return out.publish(ctx, func(next *manifest.Manifest) error {
		above := len(next.Levels) == 0 || v.lost.hasLevel(next.Levels[0])
		if !above {
			older, err := v.refs(ctx, next.Levels[0], s.ref.First, s.ref.End, 1)
			if err != nil {
				return err
			}
			above = len(older) > 0
		}
		if above {
			next.Levels = slices.Insert(next.Levels, 0, manifest.Root{})
		}
		var err error
		next.Levels[0], err = v.update(ctx, next.Levels[0], s.ref.First, s.ref.End, []pack.Ref{s.ref})
		next.Tail = without(next.Tail, []source{s})
		return err
	})
}

func without(tail []manifest.TailEntry, gone []source) []manifest.TailEntry {
	return slices.DeleteFunc(tail, func(t manifest.TailEntry) bool {
		return slices.ContainsFunc(gone, func(s source) bool { return s.ref.Hash == t.Ref.Hash })
	})
}

// mergeWaste moves the whole tail into level 0, and from there, level by level, the packs that have zeros: what they hide
// is gone when they have come to the last.
func (v *Volume) mergeWaste(ctx context.Context, vw *view) error {
	first, end := bounds(vw.tail)
	if err := v.mergeDown(ctx, vw, 0); err != nil {
		return err
	}
	for i := 0; i+1 < len(v.currentView().man.Levels); i++ {
		if err := v.sink(ctx, i, first, end); err != nil {
			return err
		}
	}
	return nil
}

// sink moves the packs of level i that overlap [first, end) and have zeros, with some neighbours, into the next level.
func (v *Volume) sink(ctx context.Context, i int, first, end uint64) error {
	for first < end {
		l := v.currentView().man.Levels[i]
		if v.lost.hasLevel(l) {
			return nil
		}
		packs, err := v.refs(ctx, l, first, end, mergeStep)
		if err != nil || len(packs) == 0 {
			return err
		}
		_, first = bounds(packs)
		packs = v.lost.cutAt(packs)
		if !slices.ContainsFunc(packs, func(s source) bool { return v.host.zeros(s) > 0 }) {
			continue
		}
		_, first = bounds(packs)
		mg, err := v.lowering(ctx, i, packs)
		if err == nil && !mg.fresh { // above a lost pack nothing comes free
			err = v.lower(ctx, mg)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// mergeLevel moves up to mergeStep packs of level i into the next one, going round the disk.
func (v *Volume) mergeLevel(ctx context.Context, vw *view, i int) error {
	packs, err := v.refs(ctx, vw.man.Levels[i], v.turns[i], ^uint64(0), mergeStep)
	if err != nil {
		return err
	}
	if len(packs) == 0 {
		v.turns[i] = 0
		return nil
	}
	_, turn := bounds(packs)
	if packs = v.lost.cutAt(packs); len(packs) > 0 {
		_, turn = bounds(packs)
		var mg *merge
		if mg, err = v.lowering(ctx, i, packs); err == nil {
			err = v.lower(ctx, mg)
		}
	}
	v.turns[i] = turn
	return err
}

// lowering is the merge that moves neighbours of level i into the next one.
func (v *Volume) lowering(ctx context.Context, i int, packs []source) (*merge, error) {
	first, end := bounds(packs)
	mg := &merge{v: v, uppers: packs, into: i + 1, lo: first, hi: end, whole: true}
	return mg, mg.collect(ctx)
}

func (v *Volume) lower(ctx context.Context, mg *merge) error {
	first, end := bounds(mg.uppers)
	return mg.run(ctx, func(next *manifest.Manifest) error {
		root, err := v.update(ctx, next.Levels[mg.into-1], first, end, nil)
		next.Levels[mg.into-1] = root
		return err
	})
}

// refs lists up to most packs of a level that overlap [first, end), in address order.
func (v *Volume) refs(ctx context.Context, level manifest.Root, first, end uint64, most int) ([]source, error) {
	var out []source
	err := v.host.Pages.Walk(ctx, level, first, end, func(r pack.Ref) error {
		if len(out) == most {
			return errCut
		}
		out = append(out, source{ref: r})
		return nil
	})
	switch {
	case err == nil || errors.Is(err, errCut):
		v.lost.found(level.Page)
		return out, nil
	case isLost(err):
		err = unreadLevel(level, err)
	}
	return nil, err
}

// update puts packs in the place of what a level has in [first, end).
func (v *Volume) update(ctx context.Context, level manifest.Root, first, end uint64, packs []pack.Ref) (manifest.Root, error) {
	root, err := v.host.Pages.Update(ctx, level, first, end, packs)
	if isLost(err) {
		err = unreadLevel(level, err)
	}
	return root, err
}

func bounds(s []source) (first, end uint64) {
	first = ^uint64(0)
	for i := range s {
		first, end = min(first, s[i].ref.First), max(end, s[i].ref.End)
	}
	return first, end
}

// merge is one step that brings packs of a higher place (uppers, newest first, newer than all of level into) down into
// the sectors [lo, hi) of a level.
type merge struct {
	v      *Volume
	uppers []source
	into   int
	lo, hi uint64
	whole  bool // hi may not be lowered: uppers leave their place with this step
	fresh  bool // what is lost is in the way: into is a new level, and what was there is the next
	old    []source
	deeper []source // packs below level into that a zero extent could hide
	blind  bool     // there are others, in a lost level
}

func level(m *manifest.Manifest, i int) manifest.Root {
	if i < len(m.Levels) {
		return m.Levels[i]
	}
	return manifest.Root{}
}

// collect finds the packs of the level that the step rewrites and moves lo and hi so that it takes them whole.
func (mg *merge) collect(ctx context.Context) error {
	vw := mg.v.currentView()
	most := mergeStep + 1
	if mg.whole {
		most = 1 << 20
	}
	into := level(vw.man, mg.into)
	if mg.fresh = mg.v.lost.hasLevel(into); !mg.fresh {
		old, err := mg.v.refs(ctx, into, mg.lo, mg.hi, most)
		if err != nil {
			return err
		}
		if !mg.whole && len(old) > mergeStep {
			mg.hi, old = old[mergeStep].ref.First, old[:mergeStep]
		}
		mg.old, mg.fresh = old, slices.ContainsFunc(old, mg.v.lost.has)
	}
	deeper := mg.into + 1
	if mg.fresh {
		mg.old, deeper = nil, mg.into
	}
	if len(mg.old) > 0 {
		first, end := bounds(mg.old)
		mg.lo, mg.hi = min(mg.lo, first), max(mg.hi, end)
	}
	for i := deeper; i < len(vw.man.Levels); i++ {
		l := vw.man.Levels[i]
		if mg.v.lost.hasLevel(l) {
			mg.blind = true
			continue
		}
		below, err := mg.v.refs(ctx, l, mg.lo, mg.hi, 1<<20)
		if err != nil {
			return err
		}
		mg.deeper = append(mg.deeper, below...)
	}
	return nil
}

// run writes the step's packs and publishes them together with the caller's change.
func (mg *merge) run(ctx context.Context, also func(*manifest.Manifest) error) error {
	v := mg.v
	m := merger{host: v.host, sector: v.sector, packs: slices.Concat(mg.uppers, mg.old)}
	m.dead = func(first, end uint64) bool {
		return !mg.blind && !slices.ContainsFunc(mg.deeper, func(s source) bool { return s.overlaps(first, end) })
	}
	out := output{v: v}
	if err := out.write(ctx, &m, mg.lo, mg.hi); err != nil {
		return err
	}
	defer v.lost.forget(m.packs)
	return out.publish(ctx, func(next *manifest.Manifest) error {
		if mg.fresh {
			next.Levels = slices.Insert(next.Levels, mg.into, manifest.Root{})
		}
		for len(next.Levels) <= mg.into {
			next.Levels = append(next.Levels, manifest.Root{})
		}
		root, err := v.update(ctx, next.Levels[mg.into], mg.lo, mg.hi, out.refs)
		if err != nil {
			return err
		}
		next.Levels[mg.into] = root
		return also(next)
	})
}
