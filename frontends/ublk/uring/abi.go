package uring

// Setup flags.
const (
	SetupCQSize       = 1 << 3 // 5.5
	SetupClamp        = 1 << 4
	SetupSubmitAll    = 1 << 7  // 5.18: one bad SQE does not stop the batch
	SetupCoopTaskrun  = 1 << 8  // 5.19: no IPI for completions
	SetupSQE128       = 1 << 10 // 5.19
	SetupSingleIssuer = 1 << 12 // 6.0
	SetupDeferTaskrun = 1 << 13 // 6.1: completions appear only inside Wait
)

// Opcodes.
const (
	opNop         = 0
	opFsync       = 3
	opReadFixed   = 4
	opWriteFixed  = 5
	opPollAdd     = 6
	opAsyncCancel = 14
	opRead        = 22
	opWrite       = 23
	opURingCmd    = 46
)

const (
	featSingleMmap = 1 << 0
	featExtArg     = 1 << 8  // 5.11
	featNoIOWait   = 1 << 17 // 6.15

	enterGetEvents = 1 << 0
	enterExtArg    = 1 << 3
	enterNoIOWait  = 1 << 7

	offSQRing = 0
	offSQEs   = 0x10000000

	registerBuffers2 = 15
	rsrcSparse       = 1

	pollMulti = 1 << 0
	fsyncData = 1 << 0
)

// sqeLink makes the next SQE wait for this one's success; else it ends with -ECANCELED.
const sqeLink = 1 << 2

// sqeSkipSuccess (5.17) leaves out the completion of an SQE that succeeds, and those of what is linked to one that fails.
const sqeSkipSuccess = 1 << 6

// CQE flags.
const FlagMore = 1 << 1 // the request stays armed

// SQE is a submission queue entry. On a ring with SetupSQE128 it is followed by 64 bytes more of Cmd.
type SQE struct {
	opcode   uint8
	flags    uint8
	ioprio   uint16
	fd       int32
	off      uint64 // URING_CMD: cmd_op in the low half
	addr     uint64
	len      uint32
	opFlags  uint32
	UserData uint64
	bufIndex uint16
	_        uint16 // personality
	_        uint32 // file index
	cmd      [16]byte
}

// CQE is a completion queue entry.
type CQE struct {
	UserData uint64
	Res      int32 // count or -errno
	Flags    uint32
}

type sqOffsets struct {
	head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
	_                                                           uint64
}

type cqOffsets struct {
	head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
	_                                                           uint64
}

type params struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sq                                                                     sqOffsets
	cq                                                                     cqOffsets
}

type getEventsArg struct {
	sigmask     uint64
	sigmaskSize uint32
	minWaitUsec uint32
	ts          uint64
}

type timespec struct{ sec, nsec int64 }

type rsrcRegister struct {
	nr, flags     uint32
	_, data, tags uint64
}
