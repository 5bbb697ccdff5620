package cache

import (
	"encoding/binary"
	"hash/crc32"
)

const (
	blockSize = 4096
	magic     = "glidecch"
	version   = 1

	headerLen = 36
	entryFix  = 16 + 4 + 4 + 4 // of an entry, without its sums
	entryMax  = entryFix + 4*MaxFrame/blockSize
	entryMin  = entryFix + 4 // all that a data block needs in the index, because longer frames need less
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// header is the first block of a segment file.
type header struct {
	blocks uint32 // of the file
	life   uint64
	seq    uint64
}

func (h header) encode(p []byte) {
	copy(p, magic)
	le.PutUint32(p[8:], version)
	le.PutUint32(p[12:], h.blocks)
	le.PutUint64(p[16:], h.life)
	le.PutUint64(p[24:], h.seq)
	le.PutUint32(p[32:], crc32.Checksum(p[:32], castagnoli))
}

func decodeHeader(p []byte) (h header, ok bool) {
	if len(p) < headerLen || string(p[:8]) != magic || le.Uint32(p[8:]) != version ||
		le.Uint32(p[32:]) != crc32.Checksum(p[:32], castagnoli) {
		return h, false
	}
	h = header{blocks: le.Uint32(p[12:]), life: le.Uint64(p[16:]), seq: le.Uint64(p[24:])}
	return h, h.blocks >= minBlocks
}

// entryLen is the length of the index entry for a frame, in bytes.
func entryLen(size uint32) uint32 { return entryFix + 4*blocksOf(size) }

func blocksOf(size uint32) uint32 { return (size + blockSize - 1) / blockSize }

// encodeEntry writes the entry of a frame, with the sums of its data, to p, which must be entryLen long.
func encodeEntry(p []byte, life uint64, pos uint32, k Key, data []byte) {
	copy(p, k.Object[:])
	le.PutUint32(p[16:], k.Frame)
	le.PutUint32(p[20:], uint32(len(data)))
	sums := p[24 : len(p)-4]
	for i := range blocksOf(uint32(len(data))) {
		le.PutUint32(sums[4*i:], blockSum(data, i))
	}
	le.PutUint32(p[len(p)-4:], entryCRC(p[:len(p)-4], life, pos))
}

// entrySize tells the frame's length from the first bytes of an entry; 0 where there is no entry.
func entrySize(p []byte) uint32 {
	if size := le.Uint32(p[20:]); size <= MaxFrame {
		return size
	}
	return 0
}

// decodeEntry checks an entry of the given life at position pos of the index. The sums are part of p.
func decodeEntry(p []byte, life uint64, pos uint32) (k Key, size uint32, sums []byte, ok bool) {
	if len(p) < entryMin {
		return k, 0, nil, false
	}
	size = entrySize(p)
	if n := int(entryLen(size)); size == 0 || len(p) < n {
		return k, 0, nil, false
	} else {
		p = p[:n]
	}
	end := len(p) - 4
	if le.Uint32(p[end:]) != entryCRC(p[:end], life, pos) {
		return k, 0, nil, false
	}
	copy(k.Object[:], p)
	k.Frame = le.Uint32(p[16:])
	return k, size, p[24:end], true
}

func entryCRC(p []byte, life uint64, pos uint32) uint32 {
	var seed [12]byte
	le.PutUint64(seed[:], life)
	le.PutUint32(seed[8:], pos)
	return crc32.Update(crc32.Checksum(seed[:], castagnoli), castagnoli, p)
}

func blockSum(data []byte, i uint32) uint32 {
	return crc32.Checksum(data[i*blockSize:min(len(data), int(i+1)*blockSize)], castagnoli)
}

// intact compares a frame with the sums of its entry.
func intact(data, sums []byte) bool {
	for i := range blocksOf(uint32(len(data))) {
		if blockSum(data, i) != le.Uint32(sums[4*i:]) {
			return false
		}
	}
	return true
}
