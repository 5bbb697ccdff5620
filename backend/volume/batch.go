package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/wlog"
)

// batch is a contiguous run of whole requests on its way to the store, folded: the last writer of each sector wins.
type batch struct {
	after   uint64 // it holds the records after this seq: the barrier of the manifest it goes into
	fold    extmap // sector -> place, as in the map of the log
	bytes   int64  // of data records, before folding
	records int
	barrier wlog.Barrier
	at      time.Time // the disk was as of barrier at this instant or later
	weight  int64     // memory taken from shared.batches
	bld     *pack.Builder
	pack    *pack.Pack // its body is bld's memory; nil when every record was a zero that hid nothing: only the barrier moves
	taken   []source   // inline packs at the tail's head that are merged into pack
	sent    chan error // gets the end of pack's upload; nil when there is none, or it was taken
	window  manifest.Window
	counted bool // in Volume.unnamed
}

// batchRecords bounds the records of a batch of small ones; a discard has no bytes to count.
const batchRecords = 1 << 16

var errCut = errors.New("batch is full")

// cut collects committed records after seq, at most Tuning.BatchBytes of data, ending at the end of a request. It
// returns nil when there are none.
func (v *Volume) cut(after uint64) (*batch, error) {
	b := &batch{after: after, fold: extmap{unit: v.unit}}
	now, last := time.Now(), v.log.LastSeq()
	if err := v.failed(v.log.Commit(last)); err != nil {
		return nil, err
	}
	var open []wlog.Record // of the request that has not ended yet
	err := v.log.Records(after, func(r wlog.Record, _ *wlog.Segment) error {
		open = append(open, r)
		if r.Flags&wlog.FlagEnd == 0 {
			return nil
		}
		for i := range open {
			b.add(&open[i], v.sector)
		}
		open = open[:0]
		b.barrier = wlog.Barrier{Seq: r.Seq, Chain: r.Chain}
		if b.bytes >= v.host.Tuning.BatchBytes || b.records >= batchRecords {
			return errCut
		}
		return nil
	})
	if err != nil && !errors.Is(err, errCut) {
		return nil, fmt.Errorf("cut a batch of %s: %w", v.name, err)
	}
	if b.records == 0 {
		return nil, nil
	}
	b.barrier.Log = v.logOf(b.barrier.Seq)
	b.at = v.instant(b.barrier.Seq, last, now)
	return b, nil
}

func (b *batch) add(r *wlog.Record, sector int64) {
	val := uint64(r.Seg)<<32 | uint64(r.Off)
	if r.Kind == wlog.KindZero {
		val = flagZero
	} else {
		b.bytes += int64(r.Count) * sector
	}
	b.fold.insert(r.First, r.Count, val)
	b.records++
}

// logOf names the incarnation a record belongs to.
func (v *Volume) logOf(seq uint64) wlog.LogID {
	inc := v.log.Head().Incarnations
	for i := len(inc) - 1; i > 0; i-- {
		if inc[i].First <= seq {
			return inc[i].ID
		}
	}
	return inc[0].ID
}

// instant dates a barrier. At time now the log ended at seq last; v.marks keeps such pairs until they are settled, for what
// is cut may be cut again, so that a batch that ends in the middle of the log is dated by the newest pair it covers: too
// old rather than too new.
func (v *Volume) instant(barrier, last uint64, now time.Time) time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	if n := len(v.marks); n > 0 && v.marks[n-1].seq == last {
		v.marks = v.marks[:n-1]
	}
	v.marks = append(v.marks, mark{last, now})
	return v.instantLocked(barrier)
}

func (v *Volume) instantLocked(barrier uint64) time.Time {
	at := v.lastInstant
	if at.IsZero() {
		at = v.mu.dirty
	}
	for i := 0; i < len(v.marks) && v.marks[i].seq <= barrier; i++ {
		at = v.marks[i].at
	}
	return at
}

// datedLocked forgets the marks that a settled barrier covers.
func (v *Volume) datedLocked(barrier uint64) {
	v.lastInstant = v.instantLocked(barrier)
	v.marks = slices.DeleteFunc(v.marks, func(m mark) bool { return m.seq <= barrier })
}

type mark struct {
	seq uint64
	at  time.Time
}

// build turns the fold into a pack. top is the view the batch will be put on, nil when that is not known yet: with it,
// the inline packs at the head of the tail are merged into the batch once they have gathered enough, and zeros that
// hide nothing are left out.
func (v *Volume) build(ctx context.Context, b *batch, top *view) error {
	m := merger{host: v.host, sector: v.sector, fold: &b.fold, log: v.log}
	if top != nil {
		b.taken = top.tail[:gathered(top.tail, b.bytes, v.host.Tuning.InlineBytes)]
		m.packs = b.taken
		m.dead = func(first, end uint64) bool { return !top.knows(len(b.taken), first, end) }
	}
	b.bld = v.host.builder(v.sector)
	b.bld.Grow(int(b.bytes))
	if err := m.into(ctx, b.bld); err != nil {
		return fmt.Errorf("build a pack of %s: %w", v.name, err)
	}
	if b.bld.Size() == 0 {
		return nil
	}
	var err error
	if b.pack, err = b.bld.Finish(); err != nil {
		return fmt.Errorf("build a pack of %s: %w", v.name, err)
	}
	return nil
}

// named counts the batch's pack no more: a manifest names it, or only one that is not settled ever will.
func (v *Volume) named(b *batch) {
	if b.counted {
		v.unnamed.Add(-1)
		b.counted = false
	}
}

// release gives back what the batch holds.
func (v *Volume) release(b *batch) {
	_ = b.waitSent() // it reads bld's memory
	v.named(b)
	if b.bld != nil {
		v.host.reuse(b.bld, v.sector)
		b.bld = nil
	}
	v.host.shared().batches.Release(b.weight)
	b.weight = 0
}

// knows tells whether the view, without the first skip packs of its tail, may hold anything for [first, end).
func (vw *view) knows(skip int, first, end uint64) bool {
	for i := range vw.tail[skip:] {
		if vw.tail[skip+i].overlaps(first, end) {
			return true
		}
	}
	return len(vw.man.Levels) > 0
}

// inlineGather is how much may gather in a manifest before it becomes a pack, as a multiple of Tuning.InlineBytes.
const inlineGather = 4

// gathered tells how many inline packs at the head of the tail a batch of n bytes takes with it: all of them when
// together they exceed what a manifest should carry, else none. Compaction leaves these alone.
func gathered(tail []source, n, inline int64) int {
	k := leadingInlines(tail)
	sum := n
	for _, s := range tail[:k] {
		sum += int64(s.ref.Size)
	}
	if sum < inlineGather*inline {
		return 0
	}
	return k
}

func leadingInlines(tail []source) int {
	k := 0
	for k < len(tail) && tail[k].pack != nil {
		k++
	}
	return k
}

// rides tells whether the batch goes into the manifest itself.
func (b *batch) rides(inline int64) bool {
	return b.pack != nil && len(b.taken) == 0 && int64(len(b.pack.Body)) < inline
}

// fits tells whether the manifest is the one that the batch goes on from: exact up to where the batch begins, and with the
// inline packs that it takes along.
func (b *batch) fits(m *manifest.Manifest) bool {
	same := func(s source, t manifest.TailEntry) bool { return s.ref.Hash == t.Ref.Hash }
	return m.Barrier.Seq == b.after && len(m.Tail) >= len(b.taken) && slices.EqualFunc(b.taken, m.Tail[:len(b.taken)], same)
}

// into enters the batch in the next manifest.
func (b *batch) into(next *manifest.Manifest, inline int64) {
	next.Tail = next.Tail[len(b.taken):]
	if b.pack != nil {
		e := manifest.TailEntry{Ref: b.pack.Ref}
		if b.rides(inline) {
			e.Inline = slices.Clone(b.pack.Body)
		}
		next.Tail = append([]manifest.TailEntry{e}, next.Tail...)
	}
	next.Barrier = manifest.Barrier{Log: b.barrier.Log, Seq: b.barrier.Seq, Chain: b.barrier.Chain}
	next.BarrierTime = b.at
}
