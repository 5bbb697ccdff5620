package wlog

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"

	"glidefs-appliance/backend/vfs"
)

// growAfter is how many segments of one size a log holds before it makes larger ones.
const growAfter = 16

// spareSize is room for what is replaced beside the segments: the head, and the owner's manifest, which may carry small
// batches.
const spareSize = 32 * blockSize

// keepIncarnations is how many incarnations the head names even if it has no record of them any more.
const keepIncarnations = 64

func (l *Log) segmentPath(number uint32) string {
	return filepath.Join(l.o.Dir, fmt.Sprintf("%08d.seg", number))
}

// writeHead replaces the head. Everything up to mark is durable, and so is what DurableSeq says.
func (l *Log) writeHead(mark uint64, clean bool) error {
	l.headMu.Lock()
	defer l.headMu.Unlock()
	l.mu.Lock()
	l.pruneLocked()
	h := l.head
	h.Mark, h.Clean = max(mark, l.durable.Load()), clean
	p := h.encode()
	l.mu.Unlock()
	if err := l.replaceLocked(headName, p); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	l.headBase = h.base.Seq
	return nil
}

// Replace replaces a small file beside the head, durably, also where the file system is full.
func (l *Log) Replace(name string, data []byte) error {
	l.headMu.Lock()
	defer l.headMu.Unlock()
	return l.replaceLocked(name, data)
}

// replaceLocked gives up the spare blocks where the file system is full: what it writes is what lets segments go.
func (l *Log) replaceLocked(name string, data []byte) error {
	name = filepath.Join(l.o.Dir, name)
	err := vfs.WriteFile(l.o.FS, name, data)
	if err == nil && !l.spareGone {
		return nil
	}
	if errors.Is(err, vfs.ErrNoSpace) && l.o.FS.Remove(l.sparePath()) == nil {
		err = vfs.WriteFile(l.o.FS, name, data)
	}
	l.makeSpareLocked()
	return err
}

func (l *Log) sparePath() string { return filepath.Join(l.o.Dir, "spare") }

// makeSpareLocked keeps a few blocks of the file system. That it fails on a full one is no error: it is tried again.
func (l *Log) makeSpareLocked() {
	l.spareGone = true
	f, err := l.o.FS.Create(l.sparePath())
	if errors.Is(err, fs.ErrExist) {
		f, err = l.o.FS.Open(l.sparePath())
	}
	if err != nil {
		return
	}
	l.spareGone = f.Allocate(0, spareSize, false) != nil
	_ = f.Close()
}

// pruneLocked forgets incarnations that ended before the log begins; not the last ones, since the store's manifest may
// still name one of them as its writer.
func (l *Log) pruneLocked() {
	incs := l.head.Incarnations
	for len(incs) > keepIncarnations && incs[0].Last.Seq <= l.head.base.Seq {
		incs = incs[1:]
	}
	l.head.Incarnations = incs
}

// headCovers makes sure that the head on disk says that no record up to last is needed.
func (l *Log) headCovers(last uint64) error {
	l.headMu.Lock()
	covered := l.headBase >= last
	l.headMu.Unlock()
	if covered {
		return nil
	}
	return l.writeHead(0, false)
}

// recycle gives dead segments a new life and makes them ready.
func (l *Log) recycle(batch []freeFile) error {
	var last uint64
	for _, f := range batch {
		last = max(last, f.last)
	}
	if err := l.headCovers(last); err != nil {
		l.mu.Lock()
		l.free = append(l.free, batch...)
		l.mu.Unlock()
		return l.failUnlessFull(err)
	}
	for _, f := range batch {
		s, err := l.newLife(f)
		if err != nil {
			return l.fail(err)
		}
		l.addReady(s)
	}
	return nil
}

// cached is a file that may be written past its page cache.
type cached interface{ Uncache(off int64) }

// newLife writes the header of a new life. It is durable no later than any record of that life, in the same file. A power
// cut that leaves the old header may show old records over new data: the head on the disk says that none of them counts.
func (l *Log) newLife(f freeFile) (*Segment, error) {
	if c, ok := f.file.(cached); ok {
		c.Uncache(dataStart(f.size))
	}
	h := segmentHeader{number: f.number, life: rand.Uint64() | 1, size: f.size, volume: l.o.Volume, id: l.id}
	if err := h.write(f.file); err != nil {
		return nil, fmt.Errorf("segment %d: write header: %w", f.number, err)
	}
	return l.newSegment(f.file, &h), nil
}

func (l *Log) newSegment(f vfs.File, h *segmentHeader) *Segment {
	s := &Segment{log: l, file: f, number: h.number, life: h.life, id: h.id, size: h.size, next: dataStart(h.size),
		reads: newReads(h.size)}
	s.refs.Store(1)
	return s
}

func (l *Log) addReady(s *Segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.table.set(s.number, s)
	l.ready = append(l.ready, s)
	l.grantLocked()
}

// create makes a new segment file, if budget and file system allow.
func (l *Log) create() error {
	number, size := l.nextFile()
	if size > l.o.SegmentSize && !l.o.Budget.take(l, size) {
		size = l.o.SegmentSize
	} else if size > l.o.SegmentSize {
		return l.createSized(number, size)
	}
	if !l.o.Budget.take(l, size) {
		l.returnNumber(number)
		return errBudget
	}
	return l.createSized(number, size)
}

// createSized makes a segment file whose size the budget has granted. It counts only once its folder is synced.
func (l *Log) createSized(number uint32, size int64) error {
	f, err := l.createFile(number, size)
	if err != nil {
		return l.notCreated(number, size, err)
	}
	s, err := l.newLife(freeFile{file: f, number: number, size: size})
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.o.FS.SyncDir(l.o.Dir)
	}
	if err != nil {
		_ = f.Close()
		return l.notCreated(number, size, err)
	}
	l.mu.Lock()
	l.bytes += size
	l.mu.Unlock()
	l.addReady(s)
	return nil
}

// notCreated gives back what a segment file would have taken.
func (l *Log) notCreated(number uint32, size int64, err error) error {
	_ = l.o.FS.Remove(l.segmentPath(number))
	l.returnNumber(number)
	l.o.Budget.give(l, size)
	return l.failUnlessFull(err)
}

func (l *Log) createFile(number uint32, size int64) (vfs.File, error) {
	name := l.segmentPath(number)
	f, err := l.o.FS.Create(name)
	if errors.Is(err, fs.ErrExist) {
		if err = l.o.FS.Remove(name); err == nil {
			f, err = l.o.FS.Create(name)
		}
	}
	if err != nil {
		return nil, err
	}
	err = f.Allocate(0, size, false)
	if err == nil && !l.bulky() {
		err = writeZeros(f, size)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// bulky tells whether the last segment was filled with hardly a flush.
func (l *Log) bulky() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bulk
}

var zeros [1 << 20]byte

// writeZeros writes the whole file once. In blocks that were only allocated each synced write has to wait for the file
// system's journal: on ext4 that took 2.9 ms where written blocks took 0.1 ms. A writer that does not sync is spared
// the double writing.
func writeZeros(f vfs.File, size int64) error {
	for off := int64(0); off < size; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(size-off, int64(len(zeros)))], off); err != nil {
			return err
		}
	}
	return nil
}

// noRoom tells whether the file system has no room for the log. Nor has it where somebody has deleted the log's folder: what
// is in files that are open can still be uploaded, so that ends the log as little as a full file system does.
func noRoom(err error) bool { return errors.Is(err, vfs.ErrNoSpace) || errors.Is(err, fs.ErrNotExist) }

// failUnlessFull passes a full file system on, which is waited for, and makes any other error final.
func (l *Log) failUnlessFull(err error) error {
	if noRoom(err) {
		return fmt.Errorf("write log %s: %w", l.o.Dir, err)
	}
	return l.fail(err)
}

// nextFile chooses the number and the size of a new segment: twice as large once there are growAfter of a size.
func (l *Log) nextFile() (number uint32, size int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.numbers); n > 0 {
		number, l.numbers = l.numbers[n-1], l.numbers[:n-1]
	} else {
		number = l.nextNum
		l.nextNum++
	}
	size = l.o.SegmentSize
	for left := l.bytes; size < maxSegment && left >= growAfter*size; size *= 2 {
		left -= growAfter * size
	}
	return number, size
}

func (l *Log) returnNumber(number uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.numbers = append(l.numbers, number)
}

// discard deletes the file of a dead segment.
func (l *Log) discard(f freeFile) error {
	err := l.headCovers(f.last)
	if err == nil {
		err = l.o.FS.Remove(l.segmentPath(f.number))
	}
	if err != nil {
		l.mu.Lock()
		l.free = append(l.free, f)
		l.mu.Unlock()
		return l.failUnlessFull(err)
	}
	_ = f.file.Close()
	l.mu.Lock()
	l.bytes -= f.size
	l.numbers = append(l.numbers, f.number)
	l.mu.Unlock()
	l.o.Budget.give(l, f.size)
	return nil
}
