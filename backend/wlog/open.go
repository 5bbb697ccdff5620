package wlog

import (
	"fmt"
	"io"
	"math"
	"path/filepath"

	"glidefs-appliance/backend/vfs"
)

// Open opens the log in o.Dir, or makes an empty one, and finds out what it holds. Until Start nothing on the disk is
// changed, so that opening may be tried again, after a crash too. The caller holds a lock that keeps other processes
// away. Errors: DamageError, ErrForeign, and those of the disk.
func Open(o Options) (*Log, error) {
	if err := o.ensureDefaults(); err != nil {
		return nil, err
	}
	l := &Log{o: o, writeAhead: writeAhead}
	l.writing.init(&l.mu)
	l.syncing.init(&l.mu)
	if err := l.recover(); err != nil {
		l.closeFiles()
		return nil, err
	}
	l.o.Budget.register(l, l.bytes)
	return l, nil
}

func (l *Log) recover() error {
	if err := l.o.FS.MkdirAll(l.o.Dir); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	h, err := loadHead(&l.o)
	if err != nil {
		return err
	}
	if err := l.openSegments(h); err != nil {
		return err
	}
	if h == nil {
		l.head = Head{Volume: l.o.Volume}
		return nil
	}
	l.head, l.headBase = *h, h.base.Seq
	return l.verify()
}

// openSegments opens all segment files; those that the head's incarnations wrote go to l.sealed.
func (l *Log) openSegments(h *Head) error {
	names, err := l.o.FS.List(l.o.Dir)
	if err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	for _, name := range names {
		var number uint32
		if n, err := fmt.Sscanf(name, "%08d.seg", &number); n != 1 || err != nil || len(name) != 12 {
			continue
		}
		if h == nil {
			return &DamageError{Dir: l.o.Dir, File: headName, Reason: "the head is missing although there are segments"}
		}
		for ; l.nextNum <= number; l.nextNum++ {
			l.numbers = append(l.numbers, l.nextNum)
		}
		if err := l.openSegment(h, name, number); err != nil {
			return err
		}
	}
	return nil
}

// openSegment opens one file. One whose making was interrupted is junk, one that is not of the log's incarnations is free.
func (l *Log) openSegment(h *Head, name string, number uint32) error {
	f, err := l.o.FS.Open(filepath.Join(l.o.Dir, name))
	if err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	s, err := l.readSegment(h, f, number)
	if s == nil {
		l.junk = append(l.junk, name)
		_ = f.Close()
		return err
	}
	l.numbers = l.numbers[:len(l.numbers)-1]
	l.bytes += s.size
	if h.byID(s.id) == nil {
		l.free = append(l.free, freeFile{file: f, number: number, size: s.size})
	} else {
		l.sealed = append(l.sealed, s)
	}
	return nil
}

// readSegment checks a segment's header; nil for a file whose making was interrupted: before it had a header, or by a
// power cut before it was synced. If it is something else then what was in it will be missed.
func (l *Log) readSegment(h *Head, f vfs.File, number uint32) (*Segment, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	p := make([]byte, headerSize)
	if _, err := f.ReadAt(p, 0); err != nil && err != io.EOF {
		return nil, err
	}
	if [headerSize]byte(p) == [headerSize]byte{} {
		return nil, nil
	}
	// It waits for direct I/O that a killed process left in flight: that could land on what is read or written next.
	if err := f.Allocate(0, size, true); err != nil {
		return nil, err
	}
	var sh segmentHeader
	reason := ""
	if err := sh.decode(p); err != nil {
		reason = err.Error()
	} else if size < sh.size && !h.SameBoot {
		return nil, nil
	} else if sh.number != number || sh.size != size {
		reason = fmt.Sprintf("its header is that of segment %d with %d bytes, the file has %d", sh.number, sh.size, size)
	} else if sh.volume != h.Volume {
		reason = "it belongs to another volume"
	}
	if reason != "" {
		return nil, &DamageError{Dir: l.o.Dir, File: filepath.Base(l.segmentPath(number)), Reason: reason}
	}
	return l.newSegment(f, &sh), nil
}

// Start begins an incarnation: it makes all that Open found durable and writes the head with the end of the log, so
// that what lies beyond can never come back; only then may anything be appended. id is random and new.
func (l *Log) Start(id LogID) error {
	if err := l.rewrite(); err != nil {
		return l.fail(err)
	}
	for _, s := range l.sealed {
		if err := s.file.Sync(); err != nil {
			return l.fail(err)
		}
		s.synced = s.last
	}
	if err := l.o.FS.SyncDir(l.o.Dir); err != nil {
		return l.fail(err)
	}
	l.headMu.Lock()
	l.makeSpareLocked()
	l.headMu.Unlock()
	for _, name := range l.junk {
		if err := l.o.FS.Remove(filepath.Join(l.o.Dir, name)); err != nil {
			return l.fail(err)
		}
	}
	l.mu.Lock()
	l.beginLocked(id)
	l.mu.Unlock()
	if err := l.writeHead(l.tip.Seq, false); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	l.mu.Lock()
	l.started = true
	l.countReclaimableLocked()
	l.mu.Unlock()
	l.o.Budget.settled()
	return nil
}

// beginLocked ends the last incarnation and adds the new one.
func (l *Log) beginLocked(id LogID) {
	incs := append([]Incarnation(nil), l.head.Incarnations...)
	if n := len(incs); n > 0 {
		incs[n-1].Last = Barrier{incs[n-1].ID, l.tip.Seq, l.tip.Chain}
	}
	l.head.Incarnations = append(incs, Incarnation{ID: id, First: l.tip.Seq + 1})
	l.head.BootID = l.o.BootID
	l.id = id
	l.durable.Store(l.tip.Seq)
	l.marked = l.tip.Seq
}

// freeSettledLocked takes the segments that the log begins after out of it. Before Start only: nobody reads them.
func (l *Log) freeSettledLocked() {
	keep := l.sealed[:0]
	for _, s := range l.sealed {
		if s.last > l.head.base.Seq {
			keep = append(keep, s)
			continue
		}
		l.table.set(s.number, nil)
		l.free = append(l.free, freeFile{s.file, s.number, s.size, s.last})
	}
	l.sealed = keep
	l.countReclaimableLocked()
}

const noLimit = math.MaxUint64
