// Package cache is the clean cache: verified frames of packs, uncompressed, on the local disk, shared by all exports.
// All of it can be fetched again, so nothing here is ever synced, nothing in its folder can fail a reader, and every
// frame is checked before its first use in a process.
//
// # On disk
//
// The cache is a log in segments, one file each, recycled in place. Integers are little endian.
//
//	segment   | header | index, 32 bytes for each data block | data blocks of 4096 bytes ...        |
//	header    | magic 8 | version 4 | blocks 4 | life 8 | seq 8 | crc 4 |            one block, zero padded
//	index     | entry | entry | ... | zeros
//	entry     | object 16 | frame 4 | length 4 | sum 4 for each data block | crc 4 |
//
// life is random and new each time the file is recycled; seq orders the segments by age. A crc is crc32c; that of an
// entry also covers the life and the entry's position, so that nothing an earlier life left behind is taken for an
// entry. Entries and data fill up in the same order, each frame begins a block, so the place of a frame follows from
// the entries before it. The index ends at the first entry that does not check.
//
// An entry says nothing about whether its data reached the disk: after a power cut either may be there without the
// other. The sums (crc32c of each block of the frame) tell, when the frame is used for the first time. Recycling is
// safe for the same reason. There is no step that seals a segment, so kill -9 loses nothing that was put before.
//
// Rejected: an index block written when a segment is full, and frame headers between the frames for the open one.
// Headers in the data cost a block each, because frames must be aligned for zero copy; and there would be two
// decoders, and a scan of 64 MiB after each crash.
//
// # Eviction
//
// First in, first out by segment. A frame that was read since its segment was filled is copied to the head when its
// segment goes (S3-FIFO's idea), up to half a segment, so that every eviction makes room. Reads while the segment is
// still filling don't count: a frame that is read sequentially in small pieces just after it was fetched would
// otherwise look hot, and one pass over a disk would push out everything.
//
// A goroutine keeps one empty segment ready. Put writes in its caller, but never waits long: see Put.
//
// A segment's life ends when it is retired and nobody uses it:
//
//	spare -> head -> filled ... -> retired -> (last use ends) idle -> spare
//
// # Lock order
//
//	Cache.mu	everything in memory; never held across I/O
package cache

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"glidefs-appliance/backend/vfs"
)

// Key names a frame.
type Key struct {
	Object [16]byte // the first bytes of the pack's name, which is a hash
	Frame  uint32
}

// MaxFrame is the longest frame that is kept, in bytes: a raw index of a pack can be longer than a frame of data.
const MaxFrame = 1 << 20

// Options of Open.
type Options struct {
	FS  vfs.FS
	Dir string // made when missing; belongs to one process at a time
	// Size bounds the bytes on disk. Below 4 small segments (256 KiB) nothing is kept.
	Size int64
	// SegmentSize is rounded down to blocks; 0 is a 16th of Size, from 64 KiB to 64 MiB, and more for a Size over
	// 64 GiB, so that there are no more than 1024 to 2048 files open. Made smaller when fewer than 4 fit into Size.
	SegmentSize int64
	// VerifyAlways checks a frame at every Get instead of the first one in this process, and makes Probe fail.
	VerifyAlways bool
}

// Stats of a cache. Counts are since Open.
type Stats struct {
	Frames   int64 // there now
	Bytes    int64 // of these frames
	Disk     int64 // bytes of the files
	Capacity int64 // bound of Disk: Options.Size rounded down to segments
	Paused   bool  // nothing is written for now because of an error, such as a full file system

	Hits       uint64 // Get and Probe that gave a frame
	Misses     uint64 // Get that did not
	Evicted    uint64 // frames that went to make room
	Reinserted uint64 // frames that were kept in an eviction because they had been read
	Damaged    uint64 // frames dropped because they did not verify or could not be read
	Dropped    uint64 // frames put and not kept: too many at once, no room in time, paused
	Wiped      uint64 // segment files thrown away by Open: garbage, or another version
	Errors     uint64 // failed writes to the cache's folder
}

// Cache is safe for concurrent use.
type Cache struct {
	o    Options
	geo  geometry // of new segments
	lock io.Closer

	hits    sync.Pool // *Hit
	scratch sync.Pool // *scratch

	kick    chan struct{} // wakes the cleaner; holds one wish
	stop    chan struct{}
	cleaner sync.WaitGroup
	puts    sync.WaitGroup

	mu struct {
		sync.Mutex
		index  index
		slots  []*segment // by slot; nil where there is none
		queue  []*segment // in use, oldest first; the head is the last one unless it is full
		spare  *segment   // ready to become the head, or nil
		idle   []*segment // retired and unused: to be recycled
		pinned int        // retired and still in use
		disk   int64      // bytes of all segment files
		seq    uint64     // of the newest segment

		writers   int           // Puts under way, the waiting ones too
		room      chan struct{} // closed when there is a new spare, or none to be expected for a while
		pausedTil time.Time     // no Put before
		hurryTil  time.Time     // no Put waits for room before
		growAfter time.Time     // no new file before
		scrubbed  int           // slots of the index below this one are verified
		closed    bool          // no new work
		shut      bool          // unused files are closed
		stats     Stats
	}
}

// Open takes the folder over from the last process: frames it put are there, except what a power cut took. The only
// errors are a folder that can't be made, read or locked (vfs.ErrLocked: another process has it). May block on the
// disk for one read of each segment's index.
func Open(o Options) (*Cache, error) {
	c := &Cache{o: o, geo: newGeometry(segmentSize(o)), kick: make(chan struct{}, 1), stop: make(chan struct{})}
	c.hits.New = func() any { return new(Hit) }
	c.scratch.New = func() any { return new(scratch) }
	c.mu.room = make(chan struct{})
	c.mu.index.init()
	if err := o.FS.MkdirAll(o.Dir); err != nil {
		return nil, fmt.Errorf("cache %s: %w", o.Dir, err)
	}
	lock, err := o.FS.Lock(filepath.Join(o.Dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("cache %s: %w", o.Dir, err)
	}
	c.lock = lock
	if err := c.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("cache %s: %w", o.Dir, err), lock.Close())
	}
	c.cleaner.Add(1)
	go c.clean()
	c.wakeCleaner()
	return c, nil
}

// segmentSize chooses the size of new segments, 0 for a cache that keeps nothing.
func segmentSize(o Options) int64 {
	const least, most, files = 64 << 10, 64 << 20, 1024
	size := o.SegmentSize
	if size == 0 {
		size = least
		for size < most && size*2 <= o.Size/16 || size < o.Size/files/2 {
			size *= 2
		}
	}
	size = min(size, o.Size/4) / blockSize * blockSize
	if size < minBlocks*blockSize {
		return 0
	}
	return size
}

// Stats may be called at any time, also after Close.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.mu.stats
	s.Frames, s.Bytes = int64(c.mu.index.count), c.mu.index.bytes
	s.Disk = c.mu.disk
	if size := c.geo.size(); size > 0 {
		s.Capacity = c.o.Size / size * size
	}
	s.Paused = time.Now().Before(c.mu.pausedTil)
	return s
}

// Close waits for the Puts under way and gives the folder free. Get misses from then on. A Hit that is still held
// stays good; its file is closed with its Release.
func (c *Cache) Close() error {
	c.mu.Lock()
	if c.mu.closed {
		c.mu.Unlock()
		return nil
	}
	c.mu.closed = true
	c.mu.Unlock()
	close(c.stop)
	c.puts.Wait()
	c.cleaner.Wait()

	c.mu.Lock()
	c.mu.shut = true
	var unused []*segment
	for _, s := range c.mu.slots {
		if s != nil && s.refs == 0 {
			unused = append(unused, s)
		}
	}
	c.mu.Unlock()
	for _, s := range unused {
		s.file.Close()
	}
	if err := c.lock.Close(); err != nil {
		return fmt.Errorf("cache %s: %w", c.o.Dir, err)
	}
	return nil
}
