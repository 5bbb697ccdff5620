package wlog

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"glidefs-appliance/backend/vfs"
)

var (
	// ErrDamaged: records that must be whole are not; DamageError says which.
	ErrDamaged = errors.New("write log is damaged")
	// ErrForeign: the log in the folder belongs to another volume.
	ErrForeign = errors.New("write log belongs to another volume")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("write log is closed")
	// ErrTooLarge: one Reserve asked for more than a log is ever sure to get; see MaxReserve.
	ErrTooLarge = errors.New("request is larger than the write log can hold at once")
)

// DamageError says what is wrong with a log that cannot be opened as it is. errors.Is(err, ErrDamaged) holds.
type DamageError struct {
	Dir    string
	File   string // in Dir; empty when no single file is at fault
	Seq    uint64 // of the record that is missing or wrong; 0 when it is not about one
	Reason string
}

func (e *DamageError) Error() string {
	msg := "write log " + e.Dir
	if e.File != "" {
		msg += "/" + e.File
	}
	if e.Seq != 0 {
		msg += fmt.Sprintf(", record %d", e.Seq)
	}
	return msg + ": " + e.Reason
}

func (e *DamageError) Is(target error) bool { return target == ErrDamaged }

// Options of one log. FS, Dir, Volume, BootID and Budget are required.
type Options struct {
	FS     vfs.FS
	Dir    string   // the export's folder
	Volume [16]byte // random id of the volume; another one in the head is ErrForeign
	BootID string   // of the running kernel; "" is never the same boot
	Budget *Budget  // shared by the logs of a daemon
	// SegmentSize of the first segments; default 4 MiB, a power of two from 64 KiB to 64 MiB.
	SegmentSize int64
	// Evict is told, without locks, that a settled segment is given up: the volume removes its map entries before it
	// returns. May block.
	Evict func(*Segment)
	// AppendGroup appends what FlushGrouped was called for, without locks, and sets each one's Seq or Err. It must not wait for
	// room: that may have to come from the flush it is a part of.
	AppendGroup func([]*GroupWrite)
	// Contain runs what the log does in the background. A panic there leaves a log that is of no use.
	Contain func(func())
	// Full is told, without locks, when requests begin to wait for room that cannot be made now, when the number or the
	// cause changes, and with waiting 0 when they no longer do. err is nil when the budget is used up, otherwise
	// vfs.ErrNoSpace naming the file system.
	Full func(waiting int, err error)
}

func (o *Options) ensureDefaults() error {
	if o.SegmentSize == 0 {
		o.SegmentSize = defaultSegment
	}
	if !validSize(o.SegmentSize) {
		return fmt.Errorf("write log %s: segment size %d is not a power of two from 64 KiB to 64 MiB", o.Dir, o.SegmentSize)
	}
	if o.Evict == nil {
		o.Evict = func(*Segment) {}
	}
	if o.Contain == nil {
		o.Contain = func(fn func()) { fn() }
	}
	if o.Full == nil {
		o.Full = func(int, error) {}
	}
	return nil
}

// Log is the write log of one export. After Start all methods may be called concurrently.
type Log struct {
	o     Options
	table segmentTable

	// reclaimable is what evicting every settled segment would give, in bytes; read by the budget.
	reclaimable atomic.Int64

	settleMu sync.Mutex // held while a Settle reads the records it is about
	headMu   sync.Mutex // held while the head, or what lies beside it, is rewritten
	headBase uint64     // base.Seq of the head on disk, guarded by headMu
	// spareGone: the spare blocks were given up, or could not be had; guarded by headMu.
	spareGone bool

	wg sync.WaitGroup // the background goroutines

	mu sync.Mutex
	// All below is guarded by mu.

	err     error // final: nothing goes on after it
	started bool
	closed  bool
	head    Head // as recovered, kept up to date in Settled, base and Incarnations
	id      LogID

	// settled <= base <= durable <= committed <= tip; last <= tip; marked <= durable
	committed atomic.Uint64 // written: survives the process; read without mu too
	durable   atomic.Uint64 // synced, and recovery would keep it: survives a power cut; read without mu too
	marked    uint64        // the newest mark record says this
	unsummed  uint64        // newest record whose data recovery can only trust below a mark
	floor     uint64        // durable, as far as the last process wrote it down: until Start
	tip       Barrier       // newest record
	last      Barrier       // newest record that is not a mark

	dirtyBytes  int64 // data in records beyond settled
	dirtyWrites uint64

	writing gate // passes of Commit
	syncing gate // passes of Flush
	pend    [2]pending
	filling int           // the one Append adds to
	dirty   []*Segment    // with records that are not durable
	syncs   []*Segment    // scratch of the running flush
	queued  []*GroupWrite // for the next one to append
	spare   []*GroupWrite // scratch: what queued was before

	cur        *Segment   // takes reservations; nil before the first
	side       *Segment   // open as well, beside a busy cur: see spreadLocked
	moving     []*Segment // were open, some of their spans are not appended yet
	ready      []*Segment // empty, to be cur next
	sealed     []*Segment // no more records will come; ordered by last; without those that are being evicted
	toSync     []*Segment // sealed, waiting for the background sync
	ahead      int64      // bytes of segments that are yet to be sealed and then synced at once: a Flush came lately
	writeAhead int64      // as the constant, smaller in tests
	junk       []string   // files whose making was interrupted, until Start
	free       []freeFile // of segments whose life is over
	dying      int        // evicted, still referenced by readers
	numbers    []uint32   // below nextNumber without a file
	nextNum    uint32
	bytes      int64
	passes     int  // syncs since cur became current
	bulk       bool // there were few of them for the one before
	waiters    []*waiter
	giveUp     int64 // bytes the budget asked for
	maint      bool  // a maintenance goroutine exists
	again      bool  // and has to look once more
	flusher    bool  // a background sync goroutine exists
	starved    bool  // there was nothing to be had: only ask again when something changes
	retry      *time.Timer

	reported     int // what Full was told
	reportedFull bool
}

// failLocked makes err final and wakes everybody who waits. Other logs that wait for a part of the budget must not count on
// this one any more, nor come after it.
func (l *Log) failLocked(err error) {
	if l.err != nil {
		return
	}
	l.err = err
	l.reclaimable.Store(0)
	go l.o.Budget.dead(l) // which must not be called with mu held
	l.writing.wakeAll()
	l.syncing.wakeAll()
	for _, w := range l.waiters {
		w.err = err
		close(w.done)
	}
	l.waiters = nil
	l.stopRetryLocked()
}

func (l *Log) fail(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failLocked(fmt.Errorf("write log %s: %w", l.o.Dir, err))
	return l.err
}

// Failed returns the error that stopped the log for ever, or nil.
func (l *Log) Failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Head is the log's head: as found by Open, and from Start on as it is now.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.head
	h.Incarnations = append([]Incarnation(nil), h.Incarnations...)
	return h
}

// End is the last whole record that Open found, marks left out; Head().Settled when nothing is beyond that.
func (l *Log) End() Barrier { return l.LastBarrier() }

// LastBarrier names the last appended record, marks left out.
func (l *Log) LastBarrier() Barrier {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// LastSeq is the seq of the last appended record, marks left out.
func (l *Log) LastSeq() uint64 { return l.LastBarrier().Seq }

// DurableSeq: all records up to it survive a power cut.
func (l *Log) DurableSeq() uint64 { return l.durable.Load() }

// Bytes is what the log holds of the local disk.
func (l *Log) Bytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// Waiting is the number of requests that wait for room.
func (l *Log) Waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiters)
}

// Unsettled tells how much is not in the store yet: bytes of data, and requests (records with FlagEnd).
func (l *Log) Unsettled() (bytes int64, writes uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dirtyBytes, l.dirtyWrites
}
