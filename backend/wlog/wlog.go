package wlog

import (
	"errors"

	"glidefs-appliance/backend/vfs"
)

var (
	// ErrDamaged: records that must be whole are not; DamageError says which.
	ErrDamaged = errors.New("write log is damaged")
	// ErrForeign: the log in the folder belongs to another volume.
	ErrForeign = errors.New("write log belongs to another volume")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("write log is closed")
)

// Options of one log. FS, Dir, Volume, BootID and Budget are required.
type Options struct {
	FS     vfs.FS
	Dir    string   // the export's folder
	Volume [16]byte // random id of the volume; another one in the head is ErrForeign
	BootID string   // of the running kernel; "" is never the same boot
	Budget *Budget  // shared by the logs of a daemon
	// SegmentSize of the first segments; default 4 MiB, at least 64 KiB, a power of two.
	SegmentSize int64
	// Evict is told, without locks, that a settled segment is given up: the volume removes its map entries before it
	// returns. May block.
	Evict func(*Segment)
	// Full is told, without locks, when requests begin to wait for room that cannot be made now, and with waiting 0
	// when they no longer do. err is nil when the budget is used up, otherwise vfs.ErrNoSpace naming the file system.
	Full func(waiting int, err error)
}

// Incarnation is one attach for writing: the records First..Last.Seq of the log.
type Incarnation struct {
	ID    LogID
	First uint64  // seq of its first record
	Last  Barrier // its last record; zero for the newest incarnation, which is still open
}

// Head is what the head file says, and whether it was written under the running kernel.
type Head struct {
	Volume       [16]byte
	BootID       string
	Incarnations []Incarnation
	Settled      Barrier // everything up to it is in the store
	Mark         uint64  // everything up to this seq was durable when the head was written
	Clean        bool    // the last process closed the log
	SameBoot     bool    // no power cut since: not stored
}

// Span is a place in a segment for the data of one record, and a slot for the record. Off is a multiple of 4096; the
// Lens of one Reserve add up to exactly what was asked for, all but the last are multiples of 4096. A record fills its
// span: Count sectors are Len bytes.
type Span struct {
	Seg *Segment
	Off int64
	Len int64
}
