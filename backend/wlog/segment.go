package wlog

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"glidefs-appliance/backend/vfs"
)

// Segment is one file of the log in one life between recyclings. A later life of the same file is another Segment.
type Segment struct {
	log    *Log
	file   vfs.File
	number uint32
	life   uint64
	id     LogID
	size   int64

	// refs is 1 for the log while the segment may be found, and 1 for each reader. At 0 the life is over.
	refs atomic.Int64

	reads reads // what was read in this life

	syncMu sync.Mutex // held across an fdatasync, so that its error is known to the log before another one succeeds

	// Guarded by log.mu. synced <= last
	next   int64  // offset of the first free byte of the data area
	used   uint32 // slots of appended records
	held   uint32 // spans reserved and not appended yet: each will take a slot
	first  uint64 // seq of the first and the last record; 0 when there is none
	last   uint64
	synced uint64 // records up to this seq are durable
	queued bool   // in log.dirty
	// surplus: when the life ends the file is deleted, unless requests wait for room
	surplus bool
}

// freeFile is a segment file without a life: nothing in it is needed once the head says that the log begins after last.
type freeFile struct {
	file   vfs.File
	number uint32
	size   int64
	last   uint64
}

func (s *Segment) slots() uint32 { return uint32(recordArea(s.size) / recordSize) }

// room is the free bytes for data, 0 when there is no slot left for their record. log.mu must be held.
func (s *Segment) room() int64 {
	if !s.hasSlot() {
		return 0
	}
	return s.size - s.next
}

// hasSlot keeps the last slot for a mark.
func (s *Segment) hasSlot() bool { return s.used+s.held+1 < s.slots() }

// Number names the segment in records. A later life of the file has it again.
func (s *Segment) Number() uint32 { return s.number }

// File is the segment's file, for splice and io_uring; not to be closed, and not to be used without a reference or
// a span.
func (s *Segment) File() vfs.File { return s.file }

// WriteAt writes the data of a reserved span. It survives the death of the process when it returns; not a power cut.
func (s *Segment) WriteAt(p []byte, off int64) error {
	if _, err := s.file.WriteAt(p, off); err != nil {
		return fmt.Errorf("write log segment %d: %w", s.number, err)
	}
	return nil
}

// ReadAt fills p. The caller holds a reference.
func (s *Segment) ReadAt(p []byte, off int64) error {
	n, err := s.file.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("write log segment %d: read %d bytes at %d: %w", s.number, len(p), off, err)
}

// Records calls fn for each of the segment's records in order, marks left out. For a sealed segment, as Evict gets it.
func (s *Segment) Records(fn func(Record) error) error {
	s.log.mu.Lock()
	c := cursor{seg: s, limit: s.last, slots: s.used}
	s.log.mu.Unlock()
	if err := c.load(); err != nil {
		return err
	}
	for c.next() {
		if c.rec.Kind == KindMark {
			continue
		}
		if err := fn(c.rec); err != nil {
			return err
		}
	}
	return nil
}

// Release gives up a reader reference. It never blocks on the disk.
func (s *Segment) Release() {
	switch n := s.refs.Add(-1); {
	case n == 0:
		s.log.lifeEnded(s)
	case n < 0:
		panic("wlog: segment released once too often")
	}
}

// Acquire adds a reader reference to the segment of that number. The caller holds the lock under which its map names
// the segment, so that Evict cannot have ended for it; a segment that is not alive is a broken invariant.
func (l *Log) Acquire(number uint32) *Segment {
	s := l.table.get(number)
	if s == nil || s.refs.Add(1) <= 1 {
		panic(fmt.Sprintf("wlog: segment %d is not alive", number))
	}
	return s
}

// segmentTable finds live segments by number without a lock. Numbers are small and used again, so it is an array.
type segmentTable struct {
	slots atomic.Pointer[[]atomic.Pointer[Segment]]
}

func (t *segmentTable) get(number uint32) *Segment {
	slots := t.slots.Load()
	if slots == nil || int(number) >= len(*slots) {
		return nil
	}
	return (*slots)[number].Load()
}

// set publishes or, with nil, withdraws a segment. log.mu must be held.
func (t *segmentTable) set(number uint32, s *Segment) {
	slots := t.slots.Load()
	if slots == nil || int(number) >= len(*slots) {
		grown := make([]atomic.Pointer[Segment], max(8, 2*int(number)))
		if slots != nil {
			for i := range *slots {
				grown[i].Store((*slots)[i].Load())
			}
		}
		slots = &grown
		t.slots.Store(slots)
	}
	(*slots)[number].Store(s)
}
