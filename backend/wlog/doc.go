// Package wlog is the write log of one export: where a write is put before it is acknowledged, and what is read again
// after a crash. Nothing in it is overwritten in place; space comes back a segment at a time.
//
// # Files
//
// A log is a folder. All integers are little endian, all checksums crc32c.
//
//	head            replaced whole: volume, boot id, incarnations and where each ends, settled barrier, mark
//	spare           a few empty blocks, given up when the file system is full and the head, or the manifest kept beside it, must be replaced
//	00000000.seg    segments of 64 KiB to 64 MiB, a power of two; 4 MiB in practice
//
//	segment    +--------+----------------------+-----------------------------------------------+
//	           | header | records, 64 bytes ea.| data, in blocks of 4096                       |
//	           +--------+----------------------+-----------------------------------------------+
//	           0        4096                   4096 + size/64, rounded up
//
//	header     magic 8 | version 4 | number 4 | life 8 | file size 8 | volume 16 | incarnation 16 | ... | crc, at 508
//	record     kind 1 | flags 1 | 0 2 | segment 4 | seq 8 | first 8 | count 8 | life 8 | off 4 | len 4 | sum 4 | 0 4 |
//	           chain 4 | crc 4
//
// Data and the records that name it are in one file so that one fdatasync makes both durable. The records of a segment
// are in seq order. A log goes on in a new segment while moves into the last one are still under way, and has two open
// while large writes come faster than one file's page cache takes them. So the seqs of segments overlap, and reading the
// log is a merge.
//
// There is a slot for a record for each data block, and some to spare for zero and mark records. A segment in which the
// slots or the blocks are used up is sealed.
//
// Each time a segment is used again it begins a new life with a random id. A record carries the life it was written in,
// so that what an earlier life left in the record area is worth nothing. In memory each life is a Segment of its own.
//
// An incarnation is one attach for writing. Seqs go on over incarnations, and a record's chain is the checksum of the
// chain of the record before it, the incarnation's random id and the record itself: two logs that differ anywhere
// before a record differ in its chain. {id, seq, chain} is a Barrier, and names a point in the write order for good.
//
// # Promises
//
//	Commit(seq)   records up to seq, and their data, survive the death of the process: they were written with pwrite, in
//	              seq order, so that a kill at any time leaves no gap
//	Flush()       everything appended before survives a power cut
//	FlushGrouped(w)  w was appended by whoever led the next flush, and survives a power cut
//
// Watermarks, as seqs:
//
//	settled <= base <= durable <= committed <= tip
//	settled   the store holds everything up to it, says the volume
//	base      settled, or a later mark with only marks in between: where recovery begins
//	durable   synced, and recovery would keep it
//	committed written to the files
//	tip       given out by Append
//
// A mark record says that everything up to some seq was durable when it was written. If each record since the last sync
// carries a checksum of its data, a flush is one fdatasync, and a mark is written only now and then. If one does not,
// recovery cannot tell whether its data reached the disk, and the flush ends with a mark and a second fdatasync. Was the
// alternative of a record file of its own better? It needs two syncs always.
//
// One failed sync is final: the kernel forgets what it could not write, and the next fdatasync would report success. Nor
// does the next process under the same boot trust it: Start writes what was beyond the last mark again before it syncs.
//
// # Recovery
//
// Open reads all record areas. It begins after base and follows seq and chain.
//
//   - Same boot: the page cache is whole. The log ends at the first missing record; any record after that is damage.
//   - Another boot, or unknown: up to the newest mark, in a record or in the head, every record must be there, otherwise
//     it is damage. Beyond it records are taken as long as they follow each other and are zeros or marks, or carry a
//     checksum that their data matches.
//
// Either way a request whose last record (FlagEnd) is not there is left out as a whole: it was not acknowledged. Marks
// stand between requests only.
//
// Start then syncs everything, and writes a head that says where the last incarnation ended. Records beyond that are
// still on the disk. They belong to that incarnation's segments, where nothing after its end counts any more, and so a
// second crash cannot bring them back. New records reuse their seqs, in other segments and under another id.
//
// # Life of a segment
//
//	created, or recycled -> ready -> open -> sealed -> evicted -> free -> recycled, or deleted
//
// Sealed segments are synced in the background. Once they are settled they are cache, and are given up oldest first when
// ready segments are needed that the budget does not grant, or when the budget asks for space for another log: Evict
// tells the volume to take it out of its map, and when the last reader has let go the life is over. A segment remembers
// which of its blocks were read (Touch), so that the volume can keep these elsewhere. Before its
// file is used or deleted the head must say that the log begins later; several share that. All of this happens ahead of
// need in one goroutine per log, which ends when there is nothing to do; a log that nobody writes to has none.
//
// # Locks
//
//	Log.settleMu      one Settle at a time; held while records are read
//	  Log.mu
//	Log.headMu        held while the head, or what lies beside it, is replaced
//	  Log.mu
//	Segment.syncMu    held while the segment is synced
//	  Log.mu          everything in memory; never held across I/O or a callback
//	Budget.mu         leaf: taken with no lock of a log held, and none is taken under it
//
// The volume's lock may be held for Append, Acquire and Release, which take Log.mu at most.
package wlog
