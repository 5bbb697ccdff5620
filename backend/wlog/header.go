package wlog

import (
	"encoding/binary"
	"fmt"

	"glidefs-appliance/backend/vfs"
)

const (
	blockSize   = 4096
	headerSize  = 512 // what is written of the header's block: one disk sector, so that a power cut cannot tear it
	formatMajor = 1

	minSegment     = 64 << 10
	maxSegment     = 64 << 20
	defaultSegment = 4 << 20
)

var segmentMagic = [8]byte{'g', 'l', 'i', 'd', 'e', 's', 'e', 'g'}

// segmentHeader is the first sector of a segment file. It is written once for each life, and again by
// rewrite.
type segmentHeader struct {
	number uint32
	life   uint64 // random, never 0
	size   int64
	volume [16]byte
	id     LogID // the incarnation whose records are in it
}

func (h *segmentHeader) encode(p []byte) {
	clear(p[:headerSize])
	copy(p, segmentMagic[:])
	binary.LittleEndian.PutUint32(p[8:], formatMajor)
	binary.LittleEndian.PutUint32(p[12:], h.number)
	binary.LittleEndian.PutUint64(p[16:], h.life)
	binary.LittleEndian.PutUint64(p[24:], uint64(h.size))
	copy(p[32:], h.volume[:])
	copy(p[48:], h.id[:])
	binary.LittleEndian.PutUint32(p[headerSize-4:], Sum(p[:headerSize-4]))
}

func (h *segmentHeader) decode(p []byte) error {
	switch {
	case len(p) < headerSize:
		return fmt.Errorf("segment header has %d bytes", len(p))
	case [8]byte(p[:8]) != segmentMagic:
		return fmt.Errorf("not a segment: it begins with %x", p[:8])
	case Sum(p[:headerSize-4]) != binary.LittleEndian.Uint32(p[headerSize-4:]):
		return fmt.Errorf("checksum of the segment header does not match")
	case binary.LittleEndian.Uint32(p[8:]) != formatMajor:
		return fmt.Errorf("segment format %d is not known, only %d", binary.LittleEndian.Uint32(p[8:]), formatMajor)
	}
	h.number = binary.LittleEndian.Uint32(p[12:])
	h.life = binary.LittleEndian.Uint64(p[16:])
	h.size = int64(binary.LittleEndian.Uint64(p[24:]))
	copy(h.volume[:], p[32:])
	copy(h.id[:], p[48:])
	if !validSize(h.size) || h.life == 0 {
		return fmt.Errorf("segment header names the size %d and the life %x", h.size, h.life)
	}
	return nil
}

func (h *segmentHeader) write(f vfs.File) error {
	var p [headerSize]byte
	h.encode(p[:])
	_, err := f.WriteAt(p[:], 0)
	return err
}

func validSize(size int64) bool {
	return size >= minSegment && size <= maxSegment && size&(size-1) == 0
}

// recordArea and dataStart say where the parts of a segment of that size lie.
func recordArea(size int64) int64 { return roundUp(size / blockSize * recordSize) }
func dataStart(size int64) int64  { return blockSize + recordArea(size) }
func capacity(size int64) int64   { return size - dataStart(size) }

func roundUp(n int64) int64 { return (n + blockSize - 1) &^ (blockSize - 1) }
