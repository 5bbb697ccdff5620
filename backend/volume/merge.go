package volume

import (
	"context"
	"fmt"

	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/wlog"
)

// merger folds sources into one pack: a log fold and packs, each over what is older than itself.
type merger struct {
	host   *Host
	sector int64
	log    *wlog.Log
	fold   *extmap
	packs  []source                     // newest first, all older than fold
	dead   func(first, end uint64) bool // a zero extent here hides nothing and is dropped; nil = never
}

// into adds the newest version of every sector the sources know to bld.
func (m *merger) into(ctx context.Context, bld *pack.Builder) error {
	return m.each(ctx, 0, ^uint64(0), func(first, count uint64, data []byte) error {
		if data == nil {
			bld.AddZero(first, count)
			return nil
		}
		bld.Add(first, data)
		return nil
	})
}

// each calls fn for every run of [first, end) in order, at most mergeChunk of data at a time; nil data means zeros. fn
// must not keep data.
func (m *merger) each(ctx context.Context, first, end uint64, fn func(first, count uint64, data []byte) error) error {
	plan, err := m.plan(ctx, first, end)
	if err != nil {
		return err
	}
	rd := mergeReader{m: m, buf: make([]byte, mergeChunk)}
	defer rd.release()
	return plan.runs(first, end, func(r run) error {
		if r.val&flagZero != 0 {
			if m.dead != nil && m.dead(r.first, r.end()) {
				return nil
			}
			return fn(r.first, r.count, nil)
		}
		for r.count > 0 {
			n := min(r.count, uint64(mergeChunk/m.sector))
			data, err := rd.read(ctx, plan, r, n)
			if err != nil {
				return err
			}
			if err := fn(r.first, n, data); err != nil {
				return err
			}
			r = plan.clip(r, r.first+n, r.end())
		}
		return nil
	})
}

// mergeChunk is how much data is in the hands of a merge at a time, in bytes.
const mergeChunk = 1 << 20

// plan says which source each sector comes from: the log's places as they are, packs as (1<<63 | number of the pack <<
// 32). Sources are entered oldest first, so that newer ones go over them.
func (m *merger) plan(ctx context.Context, first, end uint64) (*extmap, error) {
	plan := &extmap{unit: uint64(m.sector) / 512}
	for i := len(m.packs) - 1; i >= 0; i-- {
		ix, err := m.host.index(ctx, m.packs[i])
		if err != nil {
			return nil, unreadPack(m.packs[i].ref, err)
		}
		for j := ix.Find(first); j < len(ix.Extents) && ix.Extents[j].First < end; j++ {
			e := &ix.Extents[j]
			lo, hi := max(first, e.First), min(end, e.First+e.Count)
			val := uint64(flagZero)
			if e.Frame != pack.ZeroFrame {
				val = planPack | uint64(i)<<32
			}
			plan.insert(lo, hi-lo, val)
		}
	}
	if m.fold != nil {
		_ = m.fold.runs(first, end, func(r run) error {
			plan.insert(r.first, r.count, r.val)
			return nil
		})
	}
	return plan, nil
}

const planPack = 1 << 63

// mergeReader reads the data of planned runs. It keeps one fetched group of frames per pack: the plan goes by address,
// and so do a pack's frames.
type mergeReader struct {
	m    *merger
	buf  []byte
	held map[int]*frameGroup
}

type frameGroup struct {
	lo     uint32
	frames [][]byte
}

func (rd *mergeReader) release() { rd.held = nil }

// read returns the first n sectors of r, at most mergeChunk.
func (rd *mergeReader) read(ctx context.Context, plan *extmap, r run, n uint64) ([]byte, error) {
	p := rd.buf[:int64(n)*rd.m.sector]
	if r.val&planPack == 0 {
		seg := rd.m.log.Acquire(uint32(r.val >> 32))
		defer seg.Release()
		return p, seg.ReadAt(p, int64(uint32(r.val))*512)
	}
	return p, rd.readPack(ctx, int(r.val&^planPack>>32), r.first, p)
}

// readPack fills p with the sectors from first on, all of which pack i has.
func (rd *mergeReader) readPack(ctx context.Context, i int, first uint64, p []byte) error {
	s := rd.m.packs[i]
	rd.passed(first)
	ix, err := rd.m.host.index(ctx, s)
	if err != nil {
		return unreadPack(s.ref, err)
	}
	for j := ix.Find(first); len(p) > 0; j++ {
		if j >= len(ix.Extents) || ix.Extents[j].First > first || ix.Extents[j].Frame == pack.ZeroFrame {
			return fmt.Errorf("pack %s: sector %d vanished from its index", s.ref.Hash, first)
		}
		e := &ix.Extents[j]
		data, err := rd.frame(ctx, i, s, ix, e.Frame)
		if err != nil {
			return unreadPack(s.ref, err)
		}
		n := copy(p, data[int64(e.Off)+int64(first-e.First)*rd.m.sector:int64(e.Off)+int64(e.Count)*rd.m.sector])
		p, first = p[n:], first+uint64(int64(n)/rd.m.sector)
	}
	return nil
}

// groupBytes bounds the frames a merge holds of one pack, decoded: fetchBytes of them, stored, may be a whole pack.
const groupBytes = 4 << 20

// groupEnd is the last frame that is fetched together with frame f.
func groupEnd(ix *pack.Index, f uint32) uint32 {
	hi, raw := f, int64(ix.Frames[f].Raw)
	for int(hi)+1 < len(ix.Frames) {
		n := &ix.Frames[hi+1]
		raw += int64(n.Raw)
		if raw > groupBytes || int64(n.Off)+int64(n.Len)-int64(ix.Frames[f].Off) > fetchBytes {
			break
		}
		hi++
	}
	return hi
}

// passed lets go of the packs that end before a sector. Those of a level follow each other, and there may be many.
func (rd *mergeReader) passed(first uint64) {
	for i := range rd.held {
		if rd.m.packs[i].ref.End <= first {
			delete(rd.held, i)
		}
	}
}

// frame returns a frame of pack i, fetching it and those behind it with one request. They do not go through the clean cache:
// a merge reads each once.
func (rd *mergeReader) frame(ctx context.Context, i int, s source, ix *pack.Index, f uint32) ([]byte, error) {
	if g := rd.held[i]; g != nil && f >= g.lo && f < g.lo+uint32(len(g.frames)) {
		return g.frames[f-g.lo], nil
	}
	hi := groupEnd(ix, f)
	base := int64(ix.Frames[f].Off)
	raw, err := rd.m.host.stored(ctx, s, base, int64(ix.Frames[hi].Off)+int64(ix.Frames[hi].Len)-base)
	if err != nil {
		return nil, damaged("pack "+s.ref.Hash.String(), err)
	}
	g := &frameGroup{lo: f}
	for k := f; k <= hi; k++ {
		at := int64(ix.Frames[k].Off) - base
		data, err := ix.DecodeFrame(k, raw[at:at+int64(ix.Frames[k].Len)], nil)
		if err != nil && k > f {
			break // it may be overwritten
		}
		if err != nil {
			return nil, rd.m.host.damage(fmt.Sprintf("pack %s frame %d", s.ref.Hash, k), err)
		}
		g.frames = append(g.frames, data)
	}
	if rd.held == nil {
		rd.held = map[int]*frameGroup{}
	}
	rd.held[i] = g
	return g.frames[0], nil
}
