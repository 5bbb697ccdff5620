package wlog

import "fmt"

// pending gathers encoded records until a Commit writes them out.
type pending struct {
	buf  []byte
	runs []run
}

// run is a part of pending with consecutive seqs in consecutive slots of one segment: one pwrite.
type run struct {
	seg  *Segment
	slot uint32 // of the first
	n    uint32
}

// add makes place for one record in the next slot of s.
func (p *pending) add(s *Segment) []byte {
	if k := len(p.runs) - 1; k >= 0 && p.runs[k].seg == s {
		p.runs[k].n++
	} else {
		p.runs = append(p.runs, run{s, s.used, 1})
	}
	at := len(p.buf)
	if at+recordSize > cap(p.buf) {
		p.buf = append(p.buf, make([]byte, max(recordSize*16, at))...)[:at]
	}
	p.buf = p.buf[:at+recordSize]
	return p.buf[at:]
}

// write puts the runs where they belong, one after the other: were they written at once, a kill in between could leave
// a later record without an earlier one, which recovery takes for damage.
func (p *pending) write() error {
	buf := p.buf
	for i := range p.runs {
		r := &p.runs[i]
		n := int(r.n) * recordSize
		if _, err := r.seg.file.WriteAt(buf[:n], blockSize+int64(r.slot)*recordSize); err != nil {
			return fmt.Errorf("segment %d: write records: %w", r.seg.number, err)
		}
		buf = buf[n:]
	}
	return nil
}

func (p *pending) reset() {
	clear(p.runs)
	p.buf, p.runs = p.buf[:0], p.runs[:0]
}

// Append gives the records their places in the write order, recs[i] in spans[i], and queues them for Commit. The caller
// sets Kind, Flags, First, Count and Sum, and has written the data; Append sets the rest. It is called under the lock
// that orders the caller's map updates, never blocks on the disk, and ends the spans. last is the seq of the last one.
func (l *Log) Append(recs []Record, spans []Span) (last uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.started {
		panic("wlog: append before start")
	}
	for i := range recs {
		r, s := &recs[i], spans[i].Seg
		r.Off, r.Len = uint32(spans[i].Off/512), uint32(spans[i].Len)
		s.held--
		l.appendLocked(r, s)
		l.last = l.tip
		l.countLocked(r)
		if r.Kind == KindWrite && r.Flags&FlagSum == 0 {
			l.unsummed = r.Seq
		}
		l.movedLocked(s)
	}
	return l.last.Seq
}

// appendLocked queues a record for the next slot of s.
func (l *Log) appendLocked(r *Record, s *Segment) {
	r.Seq, r.Seg, r.Life = l.tip.Seq+1, s.number, s.life
	r.encode(l.pend[l.filling].add(s), l.tip.Chain, &l.id)
	l.tip = Barrier{l.id, r.Seq, r.Chain}
	s.used++
	s.last = r.Seq
	if s.first == 0 {
		s.first = r.Seq
	}
	if !s.queued {
		s.queued = true
		l.dirty = append(l.dirty, s)
	}
}

func (l *Log) countLocked(r *Record) {
	l.dirtyBytes += int64(r.Len)
	if r.Flags&FlagEnd != 0 {
		l.dirtyWrites++
	}
}

// Commit returns once the record of that seq, and so each one before it, survives the death of the process. One caller
// writes what all have queued.
func (l *Log) Commit(seq uint64) error {
	for l.committed.Load() < seq {
		if err := l.commitStep(seq); err != nil {
			return err
		}
	}
	return nil
}

// commitStep leads a pass, or waits for one.
func (l *Log) commitStep(seq uint64) error {
	l.mu.Lock()
	if l.err == nil && l.writing.running && l.committed.Load() < seq {
		l.writing.wait(seq > l.writing.through)
		return nil
	}
	defer l.mu.Unlock()
	if l.err == nil && l.committed.Load() < seq {
		l.writePassLocked()
	}
	return l.err
}

// commitLocked drops and retakes mu.
func (l *Log) commitLocked(seq uint64) error {
	l.mu.Unlock()
	defer l.mu.Lock()
	return l.Commit(seq)
}

// writePassLocked writes everything pending. It drops and retakes mu.
func (l *Log) writePassLocked() {
	p, through := &l.pend[l.filling], l.tip.Seq
	l.filling ^= 1
	l.writing.begin(through)
	l.mu.Unlock()
	err := p.write()
	l.mu.Lock()
	p.reset()
	if err != nil {
		l.failLocked(fmt.Errorf("write log %s: %w", l.o.Dir, err))
	} else {
		l.committed.Store(through)
	}
	l.writing.end()
}
