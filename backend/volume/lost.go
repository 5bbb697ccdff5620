package volume

import (
	"errors"
	"slices"
	"sync"
	"time"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
)

// isLost tells that asking the store again gives the same answer: the object, or a part of it, is gone or damaged.
func isLost(err error) bool {
	return errors.Is(err, pack.ErrDamaged) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrRange)
}

// unreadError is that of a merge, with what it could not read.
type unreadError struct {
	what string // "pack", or "level"
	hash pack.Hash
	size uint64 // in bytes, of a pack
	err  error
}

func unreadPack(r pack.Ref, err error) error {
	return &unreadError{"pack", r.Hash, uint64(r.Size), err}
}

// unreadLevel names a level by its first page, whichever of its pages it is.
func unreadLevel(l manifest.Root, err error) error { return &unreadError{"level", l.Page, 0, err} }

func (e *unreadError) Error() string { return e.err.Error() }
func (e *unreadError) Unwrap() error { return e.err }

// lostObjects are packs, and levels with a map page, that merges could not read and leave where they are, so that an object
// that comes back (from a backup, from another version of it) is read again as if nothing had happened. It is found out
// anew after each attach, and tried again now and then: what was overwritten since is not read, and a pack of which nothing
// else is left goes. A leaf lock.
type lostObjects struct {
	mu   sync.Mutex
	seen map[pack.Hash]lostObject
}

type lostObject struct {
	size  uint64
	tried time.Time
}

// lostFor is how long merges do without an object before one tries it again.
const lostFor = time.Hour

func (l *lostObjects) add(u *unreadError) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = map[pack.Hash]lostObject{}
	}
	l.seen[u.hash] = lostObject{u.size, time.Now()}
}

// has tells whether a merge should do without s.
func (l *lostObjects) has(s source) bool { return l.named(s.ref.Hash) }

// hasLevel tells whether merges should leave a level alone.
func (l *lostObjects) hasLevel(r manifest.Root) bool { return r.Packs > 0 && l.named(r.Page) }

func (l *lostObjects) named(h pack.Hash) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.seen[h]
	return ok && time.Since(p.tried) < lostFor
}

// forget takes out what a merge could do with.
func (l *lostObjects) forget(packs []source) {
	for _, s := range packs {
		l.found(s.ref.Hash)
	}
}

func (l *lostObjects) found(h pack.Hash) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.seen, h)
}

// total is how many there are, and the bytes of the packs.
func (l *lostObjects) total() (n int, bytes uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.seen {
		bytes += p.size
	}
	return len(l.seen), bytes
}

// cutAt returns the first run of packs without lost ones.
func (l *lostObjects) cutAt(packs []source) []source {
	for len(packs) > 0 && l.has(packs[0]) {
		packs = packs[1:]
	}
	if i := slices.IndexFunc(packs, l.has); i >= 0 {
		packs = packs[:i]
	}
	return packs
}

// oldest returns the position of the oldest lost pack of a tail, -1 if there is none.
func (l *lostObjects) oldest(tail []source) int {
	for i := len(tail) - 1; i >= 0; i-- {
		if l.has(tail[i]) {
			return i
		}
	}
	return -1
}

// goAround tells whether compaction can go on after the error of a step: it does without what can't be read.
func (v *Volume) goAround(err error) bool {
	var unread *unreadError
	if !errors.As(err, &unread) || !isLost(err) {
		return false
	}
	if !errors.Is(err, ErrDamaged) { // else it was counted where it was found
		err = v.host.damage("object that the manifest names", err)
	}
	v.lost.add(unread)
	v.host.Log.Warn("compaction goes around what can't be read", "disk", v.name, unread.what, unread.hash, "err", err)
	return true
}
