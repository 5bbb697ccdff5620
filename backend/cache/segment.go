package cache

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"glidefs-appliance/backend/vfs"
)

// minBlocks is the smallest segment: a header, a block of index and some data.
const minBlocks = 4

// geometry is where things are in a segment file.
type geometry struct {
	blocks uint32 // of the file; 0 for a cache that keeps nothing
	data   uint32 // first data block; the index is between the header and this one
}

func newGeometry(size int64) geometry {
	blocks := size / blockSize
	if blocks == 0 {
		return geometry{}
	}
	index := ((blocks-1)*entryMin + blockSize + entryMin - 1) / (blockSize + entryMin)
	return geometry{uint32(blocks), uint32(1 + index)}
}

func (g geometry) size() int64     { return int64(g.blocks) * blockSize }
func (g geometry) indexLen() int64 { return int64(g.data-1) * blockSize }

// segment is one life of a segment file. Recycling makes a new one, so that nobody mistakes one life for another.
type segment struct {
	file vfs.File
	name string
	slot uint32
	life uint64
	seq  uint64
	geo  geometry

	// Guarded by Cache.mu.
	refs        int    // Hits, Puts and checks under way
	retired     bool   // no frame in the index is here
	full        bool   // takes no more frames
	block       uint32 // next free data block
	pos         uint32 // next free byte of the index
	first, last uint32 // list of frames, oldest first; none when empty
}

func newSegment(f vfs.File, name string, slot uint32, h header) *segment {
	geo := newGeometry(int64(h.blocks) * blockSize)
	return &segment{file: f, name: name, slot: slot, life: h.life, seq: h.seq, geo: geo, block: geo.data,
		first: none, last: none}
}

// fits tells whether a frame can still be appended. The index never fills up before the data.
func (s *segment) fits(size uint32) bool { return !s.full && s.block+blocksOf(size) <= s.geo.blocks }

// take gives out the room for a frame.
func (s *segment) take(size uint32) (block, pos uint32) {
	block, pos = s.block, s.pos
	s.block += blocksOf(size)
	s.pos += entryLen(size)
	return block, pos
}

// link appends a slot of the index to the segment's list.
func (s *segment) link(x *index, slot uint32) {
	x.slots[slot].next = none
	if s.last == none {
		s.first = slot
	} else {
		x.slots[s.last].next = slot
	}
	s.last = slot
}

// scratch is the memory for one frame on its way in or out.
type scratch struct {
	entry [entryMax]byte
	data  []byte
}

// write puts a frame and its entry where take said.
func (s *segment) write(buf *scratch, block, pos uint32, k Key, data []byte) error {
	if _, err := s.file.WriteAt(data, int64(block)*blockSize); err != nil {
		return err
	}
	entry := buf.entry[:entryLen(uint32(len(data)))]
	encodeEntry(entry, s.life, pos, k, data)
	_, err := s.file.WriteAt(entry, blockSize+int64(pos))
	return err
}

// read returns the frame, in buf, when it is what was put for its key.
func (s *segment) read(buf *scratch, f frame) (data []byte, ok bool) {
	entry := buf.entry[:entryLen(f.bytes())]
	if !readFull(s.file, entry, blockSize+int64(f.pos)) {
		return nil, false
	}
	key, size, sums, ok := decodeEntry(entry, s.life, f.pos)
	if !ok || key != f.key || size != f.bytes() {
		return nil, false
	}
	if cap(buf.data) < int(size) {
		buf.data = make([]byte, size)
	}
	data = buf.data[:size]
	return data, readFull(s.file, data, int64(f.block)*blockSize) && intact(data, sums)
}

func readFull(f vfs.File, p []byte, off int64) bool {
	n, _ := f.ReadAt(p, off)
	return n == len(p)
}

// scan calls found for each entry, up to the first that does not check. A segment without data blocks to spare for
// an entry ends there as well.
func (s *segment) scan(found func(k Key, size uint32)) {
	r := bufio.NewReaderSize(io.NewSectionReader(s.file, blockSize, s.geo.indexLen()), 64<<10)
	for {
		p, err := r.Peek(entryMin)
		if err != nil {
			return
		}
		if p, err = r.Peek(int(entryLen(entrySize(p)))); err != nil {
			return
		}
		k, size, _, ok := decodeEntry(p, s.life, s.pos)
		if !ok || !s.fits(size) {
			return
		}
		found(k, size)
		r.Discard(len(p))
	}
}

// makeFile makes a segment file with all its blocks, so that writing to it can't fail for want of space.
func (c *Cache) makeFile() (f vfs.File, name string, err error) {
	name = filepath.Join(c.o.Dir, fmt.Sprintf("%016x", random())+suffix)
	if f, err = c.o.FS.Create(name); err != nil {
		return nil, "", err
	}
	err = f.Allocate(0, c.geo.size(), false)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		c.removeFile(f, name)
		return nil, "", err
	}
	return f, name, nil
}

func (c *Cache) removeFile(f vfs.File, name string) {
	f.Close()
	_ = c.o.FS.Remove(name) // what stays is taken up or removed by the next Open
}

// begin starts a new life of a segment file. The index is cleared as well: then the search for its end does not
// depend on what was there, and writing entries never has to read the pages around them first.
func (c *Cache) begin(f vfs.File, name string, slot uint32, seq uint64) (*segment, error) {
	h := header{blocks: c.geo.blocks, life: random(), seq: seq}
	head := make([]byte, int64(c.geo.data)*blockSize)
	h.encode(head)
	if _, err := f.WriteAt(head, 0); err != nil {
		return nil, err
	}
	return newSegment(f, name, slot, h), nil
}

func random() uint64 {
	var p [8]byte
	rand.Read(p[:])
	return le.Uint64(p[:])
}

// suffix marks the files that are ours to recycle and remove; others in the folder are left alone.
const suffix = ".frames"
