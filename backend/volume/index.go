package volume

import (
	"container/list"
	"context"
	"sync"
	"time"

	"glidefs-appliance/backend/cache"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
)

// indexFrame is the frame number under which the clean cache keeps a pack's raw index.
const indexFrame = ^uint32(0)

// indexBudget bounds the decoded pack indexes a daemon keeps in memory, in bytes.
const indexBudget = 128 << 20

// indexes is a cache of decoded pack indexes, least recently used first out, bounded in bytes (their sizes differ by
// four orders of magnitude, so a bound on their number would bound nothing).
type indexes struct {
	mu    sync.Mutex
	bytes int64
	byKey map[pack.Hash]*list.Element
	order list.List // front = most recent
}

type indexEntry struct {
	hash pack.Hash
	ix   *pack.Index
	size int64
}

func indexSize(ix *pack.Index) int64 {
	return int64(len(ix.Extents))*24 + int64(len(ix.Frames))*32 + 128
}

func (c *indexes) get(h pack.Hash) *pack.Index {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[h]
	if !ok {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*indexEntry).ix
}

func (c *indexes) put(h pack.Hash, ix *pack.Index) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byKey[h]; ok {
		return
	}
	if c.byKey == nil {
		c.byKey = map[pack.Hash]*list.Element{}
	}
	ent := &indexEntry{h, ix, indexSize(ix)}
	c.byKey[h] = c.order.PushFront(ent)
	for c.bytes += ent.size; c.bytes > indexBudget && c.order.Len() > 1; {
		last := c.order.Remove(c.order.Back()).(*indexEntry)
		delete(c.byKey, last.hash)
		c.bytes -= last.size
	}
}

// index returns the decoded index of a pack: from memory, else from the clean cache, else with one ranged GET.
func (h *Host) index(ctx context.Context, s source) (*pack.Index, error) {
	if s.pack != nil {
		return s.pack.Index, nil
	}
	sh := h.shared()
	if ix := sh.indexes.get(s.ref.Hash); ix != nil {
		return ix, nil
	}
	key := frameKey(s.ref.Hash, indexFrame)
	for again := false; ; again = true {
		raw, err := sh.once(ctx, key, time.Now(), func(ctx context.Context) ([]byte, error) { return h.rawIndex(ctx, s.ref) })
		if err != nil {
			return nil, err
		}
		ix, err := pack.DecodeIndex(s.ref, raw)
		if err == nil {
			sh.indexes.put(s.ref.Hash, ix)
			return ix, nil
		}
		if again {
			return nil, damaged("index of pack "+s.ref.Hash.String(), err)
		}
		h.Cache.Drop(key) // what came from the store was looked at: it is the clean cache's that has rotted
	}
}

func (h *Host) rawIndex(ctx context.Context, ref pack.Ref) ([]byte, error) {
	key := frameKey(ref.Hash, indexFrame)
	if raw := h.cached(key); raw != nil {
		return raw, nil
	}
	off, n := ref.IndexRange()
	raw, _, err := h.Store.Get(ctx, ref.Hash.Key(), store.Range{Off: off, Len: n})
	if err != nil {
		return nil, damaged("index of pack "+ref.Hash.String(), err)
	}
	if _, err := pack.DecodeIndex(ref, raw); err != nil {
		return nil, h.damage("index of pack "+ref.Hash.String(), err)
	}
	h.Cache.Put(key, raw)
	return raw, nil
}

// cached returns a copy of a whole clean frame, or nil.
func (h *Host) cached(key cache.Key) []byte {
	hit, ok := h.Cache.Get(key)
	if !ok {
		return nil
	}
	defer hit.Release()
	p := make([]byte, hit.Len())
	if err := hit.ReadAt(p, 0); err != nil {
		return nil
	}
	return p
}

func frameKey(h pack.Hash, frame uint32) cache.Key {
	return cache.Key{Object: [16]byte(h[:16]), Frame: frame}
}

// zeros counts the sectors of a pack's zero extents, if its index is in memory: an estimate for compaction, not worth a
// request.
func (h *Host) zeros(s source) (n uint64) {
	ix := h.shared().indexes.get(s.ref.Hash)
	if s.pack != nil {
		ix = s.pack.Index
	}
	if ix == nil {
		return 0
	}
	for i := range ix.Extents {
		if ix.Extents[i].Frame == pack.ZeroFrame {
			n += ix.Extents[i].Count
		}
	}
	return n
}
