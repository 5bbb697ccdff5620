package wlog

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
