// Package frontends knows what a virtual disk is to the transports that serve it (FUSE, ublk) and chooses among them.
// It knows nothing of logs, packs or object stores.
package frontends

import (
	"context"
	"errors"
)

// Errors a Disk returns; everything else is EIO to the guest.
var (
	ErrOutOfRange = errors.New("beyond the end of the disk")
	ErrReadOnly   = errors.New("disk is read-only")
)

// Disk is one virtual disk. An operation completes with its full count or an error, never short (P7). All offsets and
// lengths are bytes; ReadAt and WriteAt take any, at any alignment (one that is not a multiple of SectorSize reads its
// edge sectors first); Discard keeps partial edge sectors, WriteZeroes writes them. All methods may block: on log
// space (without limit) and on the object store (reads of cold data, bounded by configuration).
type Disk interface {
	Size() int64
	SectorSize() int
	ReadOnly() bool
	ReadAt(ctx context.Context, p []byte, off int64) error
	// WriteAt returns once p survives the death of the process; with fua once it survives a power cut. p is not kept.
	WriteAt(ctx context.Context, p []byte, off int64, fua bool) error
	// Flush returns once everything acknowledged before the call survives a power cut.
	Flush(ctx context.Context) error
	Discard(ctx context.Context, off, n int64) error
	WriteZeroes(ctx context.Context, off, n int64) error
}

// Extent is a run of bytes in a local file, or zeros (FD < 0).
type Extent struct {
	FD int
	// Direct is a descriptor of the same file past its page cache, where whole blocks can be had that way; else FD.
	Direct int
	Off    int64
	Len    int64
}

// Plan says where the bytes of a request lie. The holder keeps the files alive until Release. Reuse Plans: their slices
// keep their capacity. Only the Disk that filled a Plan touches Refs.
type Plan struct {
	Extents []Extent
	Refs    []Ref
}

// Ref is a hold on a local file.
type Ref interface{ Release() }

// Release drops the holds and empties the plan.
func (p *Plan) Release() {
	for i, r := range p.Refs {
		r.Release()
		p.Refs[i] = nil
	}
	p.Refs, p.Extents = p.Refs[:0], p.Extents[:0]
}

// Mapper is an optional capability of a Disk: reads served from local files without a copy (splice, READ_FIXED).
type Mapper interface {
	// MapRead fills plan with the extents of [off, off+n) in order and reports true, when all of them are local and
	// verified; otherwise plan stays empty. It never blocks.
	MapRead(off, n int64, plan *Plan) bool
}

// Placement is room for the bytes of one write in local files: the extents in order, and what the Disk keeps with them.
// Reuse Placements: their slices keep their capacity.
type Placement struct {
	Extents []Extent
	// Sums holds the crc32c of each extent's bytes, or is empty when the frontend did not see them.
	Sums []uint32
	// Own belongs to the Disk that made the reservation.
	Own any
}

// Write is a write whose bytes lie in their place.
type Write struct {
	Off   int64
	Place *Placement
}

// ShortWrite is the size up to which a placed write goes through the page cache: only longer ones are offered a Direct.
const ShortWrite = 16 << 10

// Placer is an optional capability of a Disk: the frontend moves the bytes of writes into local files itself
// (WRITE_FIXED, or a ring's WRITE). Until Commit nothing of them can be seen. Each reservation ends by Commit or
// Abandon, which empty the placement.
type Placer interface {
	// TryReserve fills place with room for a write of [off, off+n), whole sectors; false where that is refused or
	// would wait. It never blocks.
	TryReserve(off, n int64, place *Placement) bool
	// Reserve waits for room, without limit while ctx lasts.
	Reserve(ctx context.Context, off, n int64, place *Placement) error
	// Commit makes writes part of the disk, in this order, and returns once they survive the death of the process: one
	// step for all, microseconds, no waiting for a disk or a store. After an error none of them may be acknowledged.
	Commit(writes []Write) error
	Abandon(place *Placement)
}
