package volume

import (
	"errors"
	"slices"
	"sync"
	"time"

	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
)

// isLost tells that asking the store again gives the same answer: the object, or a part of it, is gone or damaged.
func isLost(err error) bool {
	return errors.Is(err, pack.ErrDamaged) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrRange)
}

// unreadError is that of a merge, with the pack that it could not read.
type unreadError struct {
	ref pack.Ref
	err error
}

func (e *unreadError) Error() string { return e.err.Error() }
func (e *unreadError) Unwrap() error { return e.err }

// lostPacks are those that merges could not read and leave where they are, so that one that comes back (from a backup, from
// another version of the object) is read again as if nothing had happened. It is found out anew after each attach, and
// tried again now and then: what was overwritten since is not read, and a pack of which nothing else is left goes. A leaf
// lock.
type lostPacks struct {
	mu    sync.Mutex
	packs map[pack.Hash]lostPack
}

type lostPack struct {
	size  uint64
	tried time.Time
}

// lostFor is how long a merge does without a pack before one tries it again.
const lostFor = time.Hour

func (l *lostPacks) add(r pack.Ref) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.packs == nil {
		l.packs = map[pack.Hash]lostPack{}
	}
	l.packs[r.Hash] = lostPack{uint64(r.Size), time.Now()}
}

// has tells whether a merge should do without s.
func (l *lostPacks) has(s source) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.packs[s.ref.Hash]
	return ok && time.Since(p.tried) < lostFor
}

// forget takes out what a merge could do with.
func (l *lostPacks) forget(packs []source) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range packs {
		delete(l.packs, s.ref.Hash)
	}
}

// total is how many there are, and their bytes.
func (l *lostPacks) total() (n int, bytes uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.packs {
		bytes += p.size
	}
	return len(l.packs), bytes
}

// cutAt returns the first run of packs without lost ones.
func (l *lostPacks) cutAt(packs []source) []source {
	for len(packs) > 0 && l.has(packs[0]) {
		packs = packs[1:]
	}
	if i := slices.IndexFunc(packs, l.has); i >= 0 {
		packs = packs[:i]
	}
	return packs
}

// oldest returns the position of the oldest lost pack of a tail, -1 if there is none.
func (l *lostPacks) oldest(tail []source) int {
	for i := len(tail) - 1; i >= 0; i-- {
		if l.has(tail[i]) {
			return i
		}
	}
	return -1
}

// goAround tells whether compaction can go on after the error of a step: it does without the pack that can't be read.
func (v *Volume) goAround(err error) bool {
	var unread *unreadError
	if !errors.As(err, &unread) || !isLost(err) {
		return false
	}
	if !errors.Is(err, ErrDamaged) { // else it was counted where it was found
		err = v.host.damage("object that the manifest names", err)
	}
	v.lost.add(unread.ref)
	v.host.Log.Warn("compaction goes around a pack that can't be read", "disk", v.name, "pack", unread.ref.Hash, "err", err)
	return true
}
