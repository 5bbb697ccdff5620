package uring

import "unsafe"

// Nop completes at once.
func (s *SQE) Nop() { s.opcode = opNop }

// Read fills p, which must come from Map, from offset off of a file.
func (s *SQE) Read(fd int, p []byte, off int64) { s.rw(opRead, fd, pointer(p), len(p), off) }

// Write is Read's counterpart.
func (s *SQE) Write(fd int, p []byte, off int64) { s.rw(opWrite, fd, pointer(p), len(p), off) }

// ReadFixed fills n bytes at `at` of the registered buffer from offset off of a file. The buffers of ublk requests begin
// at 0. EFAULT: no such buffer, or one of the other direction.
func (s *SQE) ReadFixed(fd int, buffer uint16, at, n int, off int64) {
	s.rw(opReadFixed, fd, uint64(at), n, off)
	s.bufIndex = buffer
}

// WriteFixed is ReadFixed's counterpart.
func (s *SQE) WriteFixed(fd int, buffer uint16, at, n int, off int64) {
	s.rw(opWriteFixed, fd, uint64(at), n, off)
	s.bufIndex = buffer
}

func (s *SQE) rw(op uint8, fd int, addr uint64, n int, off int64) {
	s.opcode, s.fd, s.addr, s.len, s.off = op, int32(fd), addr, uint32(n), uint64(off)
}

func pointer(p []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))) }

// Link holds the next SQE back until this one has done all it was asked for. After less, or an error, the next one ends
// with -ECANCELED. Both must go to the kernel at once: see Room.
func (s *SQE) Link() { s.flags |= sqeLink }

// Silent leaves out the completion unless it tells of a failure. Then all that is linked after it has none.
func (s *SQE) Silent() { s.flags |= sqeSkipSuccess }

// Fdatasync makes a file's data durable.
func (s *SQE) Fdatasync(fd int) { s.opcode, s.fd, s.opFlags = opFsync, int32(fd), fsyncData }

// Poll completes whenever one of the events comes, until FlagMore is missing in a completion.
func (s *SQE) Poll(fd int, events uint32) {
	s.opcode, s.fd, s.len, s.opFlags = opPollAdd, int32(fd), pollMulti, events
}

// Cancel asks for the end of the request with that user data; -ENOENT: there is none, -EALREADY: it runs.
func (s *SQE) Cancel(userData uint64) { s.opcode, s.fd, s.addr = opAsyncCancel, -1, userData }

// Command is a file's own request. addr means what the file says.
func (s *SQE) Command(fd int, op uint32, addr uint64) {
	s.opcode, s.fd, s.off, s.addr = opURingCmd, int32(fd), uint64(op), addr
}

// Payload is the body of a command: 16 bytes, or 80 on a ring with SetupSQE128.
func (s *SQE) Payload() unsafe.Pointer { return unsafe.Pointer(&s.cmd) }
