package ublk

import "unsafe"

// Control commands, ioctl encoded; the legacy numbers may be compiled out of a kernel.
const (
	cmdGetDevInfo    = 0x80207502
	cmdAddDev        = 0xc0207504
	cmdDelDev        = 0xc0207505
	cmdStartDev      = 0xc0207506
	cmdStopDev       = 0xc0207507
	cmdSetParams     = 0xc0207508
	cmdGetParams     = 0x80207509
	cmdStartRecovery = 0xc0207510 // 6.1
	cmdEndRecovery   = 0xc0207511
	cmdGetFeatures   = 0x80207513 // 6.5
	cmdDelDevAsync   = 0x80207514 // 6.7
	cmdUpdateSize    = 0xc0207515 // 6.16
)

// IO commands.
const (
	cmdFetch          = 0xc0107520
	cmdCommitAndFetch = 0xc0107521
)

// Feature flags of a device. The kernel clears those it does not know without a word.
const (
	flagZeroCopy    = 1 << 0  // 6.15
	flagRecovery    = 1 << 3  // 6.1
	flagReissue     = 1 << 4  // 6.1
	flagUserCopy    = 1 << 7  // 6.5
	flagUpdateSize  = 1 << 10 // 6.16
	flagAutoBufReg  = 1 << 11 // 6.16
	flagPerIODaemon = 1 << 13 // 6.16; set by the driver
	flagOffDaemon   = 1 << 14 // 6.17; set by the driver
	flagNoPartScan  = 1 << 18 // 7.0
)

// Device states.
const (
	stateDead     = 0
	stateLive     = 1
	stateQuiesced = 2
	stateFailIO   = 3
)

// Operations and flags of a request.
const (
	opRead        = 0
	opWrite       = 1
	opFlush       = 2
	opDiscard     = 3
	opWriteZeroes = 5

	reqFUA       = 1 << 13
	reqNeedsCopy = 1 << 17 // the buffer could not be registered (AUTO_BUF_REG's fallback)
)

// Parameter sections and attributes.
const (
	paramBasic    = 1 << 0
	paramDiscard  = 1 << 1
	paramDMAAlign = 1 << 4 // 6.15

	attrReadOnly      = 1 << 0
	attrVolatileCache = 1 << 2
	attrFUA           = 1 << 3
)

const (
	sectorShift = 9
	maxDepth    = 4096 // by which the kernel lays out the descriptors of the queues

	// A request's bytes in the char device: base + queue + tag + offset (USER_COPY).
	copyBase       = 0x80000000
	copyQueueShift = 41
	copyTagShift   = 25

	autoBufFallback = 1 << 16
)

// autoBufWord tells FETCH and COMMIT where in the ring's buffer table the next request goes. 6.17 panics on any other
// bit, so it is made here and nowhere else.
func autoBufWord(index uint16) uint64 { return uint64(index) | autoBufFallback }

// copyOffset is where byte off of a request lies in the char device.
func copyOffset(queue, tag uint16, off int) int64 {
	return copyBase + int64(queue)<<copyQueueShift + int64(tag)<<copyTagShift + int64(off)
}

type ctrlCmd struct {
	devID      uint32
	queueID    uint16
	len        uint16
	addr       uint64
	data       uint64
	devPathLen uint16
	_          uint16
	_          uint32
}

type devInfo struct {
	Queues     uint16
	Depth      uint16
	State      uint16
	_          uint16
	MaxIOBytes uint32
	ID         uint32
	PID        int32
	_          uint32
	Flags      uint64
	Cookie     uint64 // ublksrv_flags: stored for us, not looked at
	OwnerUID   uint32
	OwnerGID   uint32
	_          [2]uint64
}

type paramsBasic struct {
	attrs         uint32
	logicalShift  uint8
	physicalShift uint8
	ioOptShift    uint8
	ioMinShift    uint8
	maxSectors    uint32
	_             uint32 // chunk_sectors
	devSectors    uint64
	_             uint64 // virt_boundary_mask
}

type paramsDiscard struct {
	_                                                     uint32 // discard_alignment
	granularity, maxDiscardSectors, maxWriteZeroesSectors uint32
	maxSegments                                           uint16
	_                                                     uint16
}

// devParams is struct ublk_params up to the section dma_align; kernels take any shorter length.
type devParams struct {
	len, types uint32
	basic      paramsBasic
	discard    paramsDiscard
	_          [48]byte // devt, zoned
	dmaAlign   uint32   // a mask
	_          uint32
	_          uint32
}

// paramsLen is what is sent: the trailing word is Go's padding.
const paramsLen = unsafe.Offsetof(devParams{}.dmaAlign) + 8

// ioDesc is one request, in memory mapped from the char device; the index is the tag.
type ioDesc struct {
	opFlags uint32
	sectors uint32
	start   uint64 // 512-byte sectors
	_       uint64
}

func (d *ioDesc) op() uint32 { return d.opFlags & 0xff }

type ioCmd struct {
	queue  uint16
	tag    uint16
	result int32
	_      uint64 // must be 0 without copying by the driver
}

// descStride is how far apart the descriptors of two queues are mapped.
func descStride(page int64) int64 { return roundUp(maxDepth*int64(unsafe.Sizeof(ioDesc{})), page) }

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }
