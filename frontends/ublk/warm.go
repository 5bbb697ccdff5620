package ublk

import (
	"context"
	"encoding/binary"
)

const (
	warmHead = 128 << 10 // all of a Macintosh map; the others are shorter
	warmTail = 64 << 10  // the second table of a GPT
	warmLogs = 100       // of a chain of logical partitions, as many as the kernel follows
)

// warm reads what the kernel will read of a partition table, into the cache. While it looks for partitions a thread of
// ours waits for reads that we serve, and nothing but an answer ends it: killed before a store has answered, a process
// would keep its devices until the host is booted. Here kill -9 ends the wait. What can't be read (data that is damaged)
// is the search's own affair: a disk must come up to be saved. Errors are of ctx only.
func (d *Device) warm(ctx context.Context) error {
	p := make([]byte, warmHead)
	size, sector := d.disk.Size(), int64(d.disk.SectorSize())
	read := func(off, n int64) []byte {
		if off < 0 || off+n > size || d.disk.ReadAt(ctx, p[:n], off) != nil {
			return nil
		}
		return p[:n]
	}
	read(max(0, size-warmTail), min(warmTail, size))
	first := extended(read(0, min(warmHead, size)))
	for next, n := first, 0; next > 0 && n < warmLogs; n++ {
		if next = extended(read(next*sector, sector)); next > 0 {
			next += first
		}
	}
	return context.Cause(ctx)
}

// searched tells whether the kernel looks for partitions, by itself or asked by us.
func (d *Device) searched() bool { return !d.bare || d.info.Flags&flagNoPartScan == 0 }

// extended returns where the chain of logical partitions goes on, in sectors: from the start of the disk in its first one,
// else from the start of the chain. 0: nowhere.
func extended(mbr []byte) int64 {
	if len(mbr) < 512 || mbr[510] != 0x55 || mbr[511] != 0xaa {
		return 0
	}
	for e := mbr[446:510]; len(e) > 0; e = e[16:] {
		switch e[4] {
		case 0x05, 0x0f, 0x85:
			return int64(binary.LittleEndian.Uint32(e[8:]))
		}
	}
	return 0
}
