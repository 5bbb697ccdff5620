package volume

import "errors"

// trimAfter is how many bytes must have been zeroed before it is worth a walk over the map to see which segments of the
// log have nothing left in them.
const trimAfter = 4 << 20

// trimChunk bounds the extents of the map that are looked at while its lock is held.
const trimChunk = 4096

var errChunk = errors.New("that is enough for now")

// trimSoon gives back, in the background, the segments whose data discards and zeroes have hidden. It is called when a
// batch has settled: nothing goes before the store has it.
func (v *Volume) trimSoon() {
	v.mu.Lock()
	due := v.mu.punched >= trimAfter
	if due {
		v.mu.punched = 0
	}
	v.mu.Unlock()
	if due {
		v.spawn(v.trim)
	}
}

// trim need not see the map at one moment: no segment gets data again once it is sealed, and one that is settled by
// mistake is a copy.
func (v *Volume) trim() {
	live := map[uint32]bool{}
	for first, more := uint64(0), true; more; {
		first, more = v.markLive(live, first)
	}
	v.log.Trim(func(number uint32) bool { return !live[number] })
}

// markLive enters the segments that some extents from sector first on lie in, and returns where to go on.
func (v *Volume) markLive(live map[uint32]bool, first uint64) (next uint64, more bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := 0
	err := v.mu.m.runs(first, ^uint64(0), func(r run) error {
		if n++; n > trimChunk {
			next = r.first
			return errChunk
		}
		if r.val&flagZero == 0 {
			live[uint32(r.val>>32)] = true
		}
		return nil
	})
	return next, err != nil
}
