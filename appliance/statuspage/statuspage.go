// Package statuspage is a file that the daemon keeps mapped and up to date, so that `status` has an answer when the
// daemon is stopped or stuck.
//
// The file has two slots of equal size, each a page-aligned half. A write goes to the slot that does not hold the newest
// content, so that one whole slot is there at every instant, whatever dies when:
//
//	0        8     16     24    32    36    40    44      64
//	| magic  | seq | time | born | pid | len | crc | boot  | content ...
//
//	magic  "GLDSTAT1"        time  unix nanoseconds of the write      pid, born  of the writer (born: /proc/PID/stat field 22)
//	seq    the higher wins   len   bytes of content                   boot       first bytes of the boot id
//	crc    CRC-32C of all before it and all after it
//
// All numbers are little endian. The blocks are allocated when the file is made: a full file system must not become a
// SIGBUS. The file grows by being replaced. There is one writer; a reader needs no lock, and a torn read fails the CRC.
package statuspage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	magic      = "GLDSTAT1"
	headLen    = 64
	crcAt      = 40
	firstSlot  = 64 << 10
	pageAlign  = 4 << 10
	maxContent = 64 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrNone: there is no page, or none that is whole.
var ErrNone = errors.New("no status page")

// Page is open for writing; by one process, from one goroutine at a time.
type Page struct {
	path string
	mem  []byte
	seq  uint64
	me   Writer
}

// Writer is the process that wrote a page.
type Writer struct {
	PID  int
	Born uint64 // start time in clock ticks since boot: a PID alone may be somebody else's by now
	Boot [20]byte
}

// Open maps the page at path, making it when it isn't there. Sequence and content go on from the last writer's.
func Open(path string) (*Page, error) {
	p := &Page{path: path, me: self()}
	last, _ := Read(path) // none is as good as an empty one
	p.seq = last.seq
	err := p.reuse()
	if err != nil {
		err = p.replace(max(firstSlot, slotFor(last.Bytes)), nil)
	}
	if err != nil {
		return nil, fmt.Errorf("status page %s: %w", path, err)
	}
	p.fill(last.Bytes)
	return p, nil
}

// reuse maps the last daemon's file, so that one can start on a file system that is full.
func (p *Page) reuse() error {
	f, err := os.OpenFile(p.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := int(info.Size())
	if size < 2*firstSlot || size%(2*pageAlign) != 0 {
		return fmt.Errorf("%d bytes are no page", size)
	}
	// The blocks are there unless somebody punched a hole.
	return p.mapFile(f, size)
}

// mapFile allocates and maps a file, in place of the one that was mapped.
func (p *Page) mapFile(f *os.File, size int) error {
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(size)); err != nil {
		return fmt.Errorf("allocate: %w", err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map: %w", err)
	}
	if p.mem != nil {
		unix.Munmap(p.mem)
	}
	p.mem = mem
	return nil
}

// replace puts a new file of two slots of the given size, one of them holding content, in place of the old one.
func (p *Page) replace(slot int, content []byte) error {
	next := p.path + ".new"
	f, err := os.OpenFile(next, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.mapFile(f, 2*slot); err != nil {
		return err
	}
	p.fill(content)
	return os.Rename(next, p.path)
}

// Write publishes content. It touches memory only, unless the content outgrew the file.
func (p *Page) Write(content []byte) error {
	if len(content) > maxContent {
		return fmt.Errorf("status page: %d bytes are too many", len(content))
	}
	if headLen+len(content) > len(p.mem)/2 {
		if err := p.replace(slotFor(content), content); err != nil {
			return fmt.Errorf("status page %s: %w", p.path, err)
		}
		return nil
	}
	p.fill(content)
	return nil
}

// slotFor is the size of a slot with room for content to double, bytes.
func slotFor(content []byte) int {
	return (2*(headLen+len(content)) + pageAlign - 1) &^ (pageAlign - 1)
}

func (p *Page) fill(content []byte) {
	p.seq++
	half := len(p.mem) / 2
	b := p.mem[int(p.seq%2)*half:][:headLen+len(content)]
	copy(b, magic)
	le := binary.LittleEndian
	le.PutUint64(b[8:], p.seq)
	le.PutUint64(b[16:], uint64(time.Now().UnixNano()))
	le.PutUint64(b[24:], p.me.Born)
	le.PutUint32(b[32:], uint32(p.me.PID))
	le.PutUint32(b[36:], uint32(len(content)))
	copy(b[44:headLen], p.me.Boot[:])
	copy(b[headLen:], content)
	le.PutUint32(b[crcAt:], sum(b))
}

func sum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:crcAt], castagnoli), castagnoli, b[crcAt+4:])
}

// Close unmaps the page. The file stays for readers.
func (p *Page) Close() error {
	mem := p.mem
	p.mem = nil
	return unix.Munmap(mem)
}
