package statuspage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
)

// Content is what a page held.
type Content struct {
	Bytes  []byte
	Writer Writer
	seq    uint64
}

// Read returns the newest whole content of the page at path, or ErrNone. It never waits for the writer: after a torn
// read of the slot that was being written, the other slot is the newest.
func Read(path string) (c Content, err error) {
	for range readTries {
		b, err := os.ReadFile(path)
		if err != nil {
			return Content{}, fmt.Errorf("%w: %w", ErrNone, err)
		}
		if c, err = decode(b); err == nil {
			return c, nil
		}
	}
	return Content{}, ErrNone
}

// readTries: a reader that the scheduler stops in the middle may find both slots written meanwhile; it looks again.
const readTries = 100

func decode(b []byte) (Content, error) {
	half := len(b) / 2
	one, ok1 := decodeSlot(b[:half])
	two, ok2 := decodeSlot(b[half:])
	switch {
	case ok2 && (!ok1 || two.seq > one.seq):
		return two, nil
	case ok1:
		return one, nil
	}
	return Content{}, ErrNone
}

func decodeSlot(b []byte) (Content, bool) {
	if len(b) < headLen || string(b[:len(magic)]) != magic {
		return Content{}, false
	}
	le := binary.LittleEndian
	n := int(le.Uint32(b[36:]))
	if n > len(b)-headLen {
		return Content{}, false
	}
	b = b[:headLen+n]
	if sum(b) != le.Uint32(b[crcAt:]) {
		return Content{}, false
	}
	return Content{
		Bytes:  bytes.Clone(b[headLen:]),
		Writer: Writer{PID: int(le.Uint32(b[32:])), Born: le.Uint64(b[24:]), Boot: [20]byte(b[44:headLen])},
		seq:    le.Uint64(b[8:]),
	}, true
}

// Alive tells whether the process that wrote the page still runs.
func (w Writer) Alive() bool {
	born, state := stat(w.PID)
	return w.PID > 0 && w.Boot == boot() && born == w.Born && state != "Z" && state != "X"
}

func self() Writer {
	born, _ := stat(os.Getpid())
	return Writer{PID: os.Getpid(), Born: born, Boot: boot()}
}

func boot() (id [20]byte) {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	copy(id[:], b)
	return id
}

// stat returns the start time of a process, 0 when there is none, and its state letter.
func stat(pid int) (born uint64, state string) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, ""
	}
	// The name, in parentheses, may hold anything; the fields after it start with number 3.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 {
		return 0, ""
	}
	fmt.Sscan(fields[22-3], &born)
	return born, fields[0]
}
