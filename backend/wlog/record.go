package wlog

import (
	"encoding/binary"
	"hash/crc32"
)

// LogID names an incarnation: one attach for writing. Random.
type LogID [16]byte

// Kind of a record.
type Kind uint8

const (
	KindWrite Kind = 1 // sectors [First, First+Count) are at Off of segment Seg in its life Life
	KindZero  Kind = 2 // discard or write-zeroes; no data
	KindMark  Kind = 3 // First holds a seq: everything up to it is durable
)

// Flags of a record.
const (
	FlagEnd   = 1 // last record of its request: batches are cut only here
	FlagSum   = 2 // Sum is the crc32c of the data
	FlagPunch = 4 // a discard (KindZero only); its zeros need not be stored
)

// Record is one entry of the log, 64 bytes on disk, in the record area of the segment that holds its data.
type Record struct {
	Kind  Kind
	Flags uint8
	Seq   uint64 // consecutive over incarnations; marks have one too
	First uint64 // sector
	Count uint64 // sectors
	Seg   uint32
	Off   uint32 // of the data in the segment file, in 512-byte units
	Life  uint64
	Len   uint32 // bytes of data: the length of its span; set by Append
	Sum   uint32 // crc32c of the Len bytes of data, if FlagSum
	Chain uint32 // crc32c over the previous record's Chain, the incarnation's LogID and this record
}

// Barrier names an exact point in the write order.
type Barrier struct {
	Log   LogID
	Seq   uint64
	Chain uint32
}

const (
	recordSize = 64
	recordBody = 56 // what Chain covers
	recordSelf = 60 // what the self crc covers
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sum is the checksum of a record's data.
func Sum(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// DataOff is the byte offset of the data in the segment file.
func (r *Record) DataOff() int64 { return int64(r.Off) * 512 }

// encode fills p, sets r.Chain, and expects the other fields to be set. The life in the record makes its self crc
// worthless in any other life of the segment.
func (r *Record) encode(p []byte, prev uint32, id *LogID) {
	_ = p[recordSize-1]
	binary.LittleEndian.PutUint32(p[0:], uint32(r.Kind)|uint32(r.Flags)<<8)
	binary.LittleEndian.PutUint32(p[4:], r.Seg)
	binary.LittleEndian.PutUint64(p[8:], r.Seq)
	binary.LittleEndian.PutUint64(p[16:], r.First)
	binary.LittleEndian.PutUint64(p[24:], r.Count)
	binary.LittleEndian.PutUint64(p[32:], r.Life)
	binary.LittleEndian.PutUint32(p[40:], r.Off)
	binary.LittleEndian.PutUint32(p[44:], r.Len)
	binary.LittleEndian.PutUint32(p[48:], r.Sum)
	binary.LittleEndian.PutUint32(p[52:], 0)
	r.Chain = chain(prev, id, p)
	binary.LittleEndian.PutUint32(p[56:], r.Chain)
	binary.LittleEndian.PutUint32(p[60:], crc32.Update(0, castagnoli, p[:recordSelf]))
}

// chain is the checksum of an encoded record that follows one with the chain prev in the incarnation id.
func chain(prev uint32, id *LogID, p []byte) uint32 {
	c := crc32.Update(prev, castagnoli, id[:])
	return crc32.Update(c, castagnoli, p[:recordBody])
}

// decode reports whether p holds a whole record. It does not say in which life.
func (r *Record) decode(p []byte) bool {
	_ = p[recordSize-1]
	if crc32.Update(0, castagnoli, p[:recordSelf]) != binary.LittleEndian.Uint32(p[60:]) {
		return false
	}
	*r = Record{
		Kind:  Kind(p[0]),
		Flags: p[1],
		Seg:   binary.LittleEndian.Uint32(p[4:]),
		Seq:   binary.LittleEndian.Uint64(p[8:]),
		First: binary.LittleEndian.Uint64(p[16:]),
		Count: binary.LittleEndian.Uint64(p[24:]),
		Life:  binary.LittleEndian.Uint64(p[32:]),
		Off:   binary.LittleEndian.Uint32(p[40:]),
		Len:   binary.LittleEndian.Uint32(p[44:]),
		Sum:   binary.LittleEndian.Uint32(p[48:]),
		Chain: binary.LittleEndian.Uint32(p[56:]),
	}
	reserved := binary.LittleEndian.Uint16(p[2:]) != 0 || binary.LittleEndian.Uint32(p[52:]) != 0
	return !reserved && r.Seq > 0 && r.Kind >= KindWrite && r.Kind <= KindMark && (r.Kind == KindWrite || r.Len == 0)
}
