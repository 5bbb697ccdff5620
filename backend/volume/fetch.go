package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
)

// fetchBytes bounds one ranged GET for neighbouring frames.
const fetchBytes = 1 << 20

// frameRun is a run of neighbouring frames of one pack, fetched with one request, and the parts that want them.
type frameRun struct {
	src    source
	ix     *pack.Index
	lo, hi uint32 // frames, hi included
	parts  []part
}

// frameRuns groups parts (sorted by address) into requests.
func frameRuns(parts []part) []frameRun {
	var runs []frameRun
	for _, pt := range parts {
		if n := len(runs); n > 0 && runs[n-1].takes(pt) {
			r := &runs[n-1]
			r.hi = max(r.hi, pt.frame)
			r.parts = append(r.parts, pt)
			continue
		}
		runs = append(runs, frameRun{pt.src, pt.ix, pt.frame, pt.frame, []part{pt}})
	}
	return runs
}

func (r *frameRun) takes(pt part) bool {
	if r.src.ref.Hash != pt.src.ref.Hash || pt.frame < r.lo || pt.frame > r.hi+1 {
		return false
	}
	f := r.ix.Frames
	return pt.frame <= r.hi || int64(f[pt.frame].Off)+int64(f[pt.frame].Len)-int64(f[r.lo].Off) <= fetchBytes
}

// memory is what reading the run holds, in bytes: the frames as they are stored and as they are read.
func (r *frameRun) memory() (n int64) {
	for _, f := range r.ix.Frames[r.lo : r.hi+1] {
		n += int64(f.Len) + int64(f.Raw)
	}
	return n
}

// frames returns the uncompressed frames lo..hi of a pack, verified: from the clean cache, from fetches that run
// already, or from the store. The slices are shared: read only.
func (h *Host) frames(ctx context.Context, s source, ix *pack.Index, lo, hi uint32) ([][]byte, error) {
	out := make([][]byte, hi-lo+1)
	lead := make([]*flight, hi-lo+1)
	defer h.abandon(s, lo, lead)
	for i := range out {
		key := frameKey(s.ref.Hash, lo+uint32(i))
		if out[i] = h.cached(key); out[i] == nil {
			if fl, first := h.shared().flights.join(ctx, key); first {
				lead[i] = fl
			}
		}
	}
	err := h.fetchLed(ctx, s, ix, lo, out, lead)
	since := time.Now()
	for i := range out {
		if out[i] == nil && err == nil {
			out[i], err = h.frame(ctx, s, ix, lo+uint32(i), since)
		}
	}
	return out, err
}

// fetchLed fetches the frames this caller leads, neighbours together, and finishes all their flights.
func (h *Host) fetchLed(ctx context.Context, s source, ix *pack.Index, lo uint32, out [][]byte, lead []*flight) error {
	var first error
	for i := 0; i < len(lead); {
		if lead[i] == nil {
			i++
			continue
		}
		j := i
		for j+1 < len(lead) && lead[j+1] != nil {
			j++
		}
		err := first
		if err == nil {
			err = h.fetch(ctx, s, ix, lo+uint32(i), out[i:j+1])
		}
		for k := i; k <= j; k++ {
			h.shared().flights.finish(frameKey(s.ref.Hash, lo+uint32(k)), lead[k], out[k], err)
			lead[k] = nil
		}
		first, i = err, j+1
	}
	return first
}

// abandon finishes the flights that a panic has left: others wait for them.
func (h *Host) abandon(s source, lo uint32, lead []*flight) {
	for i, fl := range lead {
		if fl != nil {
			h.shared().flights.finish(frameKey(s.ref.Hash, lo+uint32(i)), fl, nil, errAbandoned)
		}
	}
}

// frame returns one frame, joining a fetch that runs; since is when the caller began to wait for such.
func (h *Host) frame(ctx context.Context, s source, ix *pack.Index, i uint32, since time.Time) ([]byte, error) {
	key := frameKey(s.ref.Hash, i)
	if p := h.cached(key); p != nil {
		return p, nil
	}
	return h.shared().once(ctx, key, since, func(ctx context.Context) ([]byte, error) {
		var out [1][]byte
		err := h.fetch(ctx, s, ix, i, out[:])
		return out[0], err
	})
}

// fetch gets the frames lo.. into out with one request, verifies them and keeps them in the clean cache.
func (h *Host) fetch(ctx context.Context, s source, ix *pack.Index, lo uint32, out [][]byte) error {
	hi := lo + uint32(len(out)) - 1
	base := int64(ix.Frames[lo].Off)
	n := int64(ix.Frames[hi].Off) + int64(ix.Frames[hi].Len) - base
	raw, err := h.stored(ctx, s, base, n)
	if err != nil {
		return damaged("pack "+s.ref.Hash.String(), err)
	}
	for i := range out {
		f := ix.Frames[lo+uint32(i)]
		at := int64(f.Off) - base
		data, err := ix.DecodeFrame(lo+uint32(i), raw[at:at+int64(f.Len)], nil)
		if err != nil {
			clear(out)
			return h.damage(fmt.Sprintf("pack %s frame %d", s.ref.Hash, lo+uint32(i)), err)
		}
		out[i] = data
		h.Cache.Put(frameKey(s.ref.Hash, lo+uint32(i)), data)
	}
	return nil
}

// stored returns bytes of a pack's object.
func (h *Host) stored(ctx context.Context, s source, off, n int64) ([]byte, error) {
	if s.pack != nil {
		return s.pack.Body[off : off+n], nil
	}
	raw, _, err := h.Store.Get(ctx, s.ref.Hash.Key(), store.Range{Off: off, Len: n})
	return raw, err
}

// damage counts and logs bytes from the store that are not what they should be.
func (h *Host) damage(what string, err error) error {
	h.counters.damaged.Add(1)
	err = damaged(what, err)
	h.Log.Error("damage in the object store", "err", err)
	return err
}

// isGone tells that an object a manifest named is not there.
func isGone(err error) bool { return errors.Is(err, store.ErrNotFound) }

// noteStore keeps the last outcome of talking to the store for Status.
func (v *Volume) noteStore(err error) {
	switch {
	case err == nil:
		v.offline.Store(nil)
	case store.Retryable(err) || errors.Is(err, context.DeadlineExceeded):
		v.offline.Store(&err)
	}
}
