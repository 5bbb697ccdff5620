package wlog

import "slices"

// rewrite writes everything once more that was not known to be durable when the last process ended under this boot. A sync
// of it may have failed: then the kernel has forgotten that the pages were never written, fdatasync would say that all is
// well, and a power cut would prove it wrong. Written again they are dirty again. It is done after every such end, because
// a process that is killed between the failure and a note of it leaves no note. It costs what was written since the last
// mark, as a rule since the last batch was uploaded.
//
// Data that carries a checksum must have it still: the kernel may also have dropped the pages.
func (l *Log) rewrite() error {
	if !l.head.SameBoot {
		return nil
	}
	var data []byte
	l.mu.Lock()
	segs := l.extentsLocked()
	l.mu.Unlock()
	for _, e := range segs {
		if e.last > l.floor {
			if err := rewriteRecords(e.seg); err != nil {
				return err
			}
		}
	}
	return walk(segs, l.floor, l.tip.Seq, func(r *Record, _ []byte, s *Segment) error {
		if r.Kind != KindWrite {
			return nil
		}
		data = slices.Grow(data[:0], int(r.Len))[:r.Len]
		if err := s.ReadAt(data, r.DataOff()); err != nil {
			return err
		}
		if r.Flags&FlagSum != 0 && Sum(data) != r.Sum {
			v := verifier{l: l, tip: Barrier{Seq: r.Seq - 1}}
			return v.damage(s, "its data is not what was written, although the kernel has run since: the disk has lost it")
		}
		return s.WriteAt(data, r.DataOff())
	})
}

// rewriteRecords writes the header, and the record area over itself: records that were durable keep their content.
func rewriteRecords(s *Segment) error {
	c := cursor{seg: s}
	if err := c.load(); err != nil {
		return err
	}
	h := segmentHeader{number: s.number, life: s.life, size: s.size, volume: s.log.o.Volume, id: s.id}
	if err := h.write(s.file); err != nil {
		return err
	}
	return s.WriteAt(c.area, blockSize)
}
