package wlog

import (
	"fmt"
	"io"
	"slices"
	"sort"
)

// cursor reads the records of one segment in slot order, which is seq order. Slots that hold no whole record of this
// life are passed over: whoever needs a gapless sequence looks at the seqs.
type cursor struct {
	seg   *Segment
	limit uint64 // later records are not of this log: another process appended them and they were cut off
	slots uint32 // that have been used; 0: any may have been
	area  []byte
	slot  int // of the next record
	rec   Record
}

// load reads the record area as far as it is used, growing c.area as needed.
func (c *cursor) load() error {
	size := int(recordArea(c.seg.size))
	if c.slots > 0 {
		size = int(c.slots) * recordSize
	}
	c.area = slices.Grow(c.area[:0], size)[:size]
	n, err := c.seg.file.ReadAt(c.area, blockSize)
	if err != nil && err != io.EOF {
		return fmt.Errorf("write log segment %d: read records: %w", c.seg.number, err)
	}
	c.area, c.slot = c.area[:n/recordSize*recordSize], 0
	return nil
}

func (c *cursor) next() bool {
	for (c.slot+1)*recordSize <= len(c.area) {
		p := c.area[c.slot*recordSize:]
		c.slot++
		if c.rec.decode(p) && c.seg.owns(&c.rec) {
			return c.rec.Seq <= c.limit
		}
	}
	return false
}

// owns tells whether a record was written into this life of the segment and points into its data area.
func (s *Segment) owns(r *Record) bool {
	if r.Life != s.life || r.Seg != s.number {
		return false
	}
	return r.Kind != KindWrite || r.DataOff() >= dataStart(s.size) && r.DataOff()+int64(r.Len) <= s.size
}

// encoded is the record as it lies in the file.
func (c *cursor) encoded() []byte { return c.area[(c.slot-1)*recordSize : c.slot*recordSize] }

// walk calls fn for the records with after < seq <= through of the segments in seq order, marks included; fn gets the
// encoded form too, valid during the call. segs are extents {segment, first seq, last seq}, each file is read once, and
// only the few that overlap are in memory together.
func walk(segs []extent, after, through uint64, fn func(*Record, []byte, *Segment) error) error {
	segs = slices.DeleteFunc(slices.Clone(segs), func(e extent) bool {
		return e.first == 0 || e.last <= after || e.first > through
	})
	sort.Slice(segs, func(i, j int) bool { return segs[i].first < segs[j].first })
	m := merge{after: after, through: through}
	for {
		c, err := m.least(&segs)
		if c == nil || err != nil {
			return err
		}
		if err := fn(&c.rec, c.encoded(), c.seg); err != nil {
			return err
		}
		m.advance(c)
	}
}

// extent is the range of seqs that a segment holds, in that many slots; 0: in any.
type extent struct {
	seg         *Segment
	first, last uint64
	slots       uint32
}

// merge holds the cursors that stand on a record.
type merge struct {
	after, through uint64
	open           []*cursor
	spare          []*cursor // for their buffers
}

// least opens what may hold the next record and returns the cursor with the smallest seq, nil at the end.
func (m *merge) least(segs *[]extent) (*cursor, error) {
	for {
		var c *cursor
		for _, o := range m.open {
			if c == nil || o.rec.Seq < c.rec.Seq {
				c = o
			}
		}
		if len(*segs) == 0 || c != nil && (*segs)[0].first > c.rec.Seq {
			return c, nil
		}
		if err := m.add((*segs)[0]); err != nil {
			return nil, err
		}
		*segs = (*segs)[1:]
	}
}

func (m *merge) add(e extent) error {
	c := new(cursor)
	if n := len(m.spare); n > 0 {
		c, m.spare = m.spare[n-1], m.spare[:n-1]
	}
	c.seg, c.limit, c.slots = e.seg, e.last, e.slots
	if err := c.load(); err != nil {
		return err
	}
	m.open = append(m.open, c)
	m.advance(c)
	return nil
}

// advance moves a cursor to its next record in range, or retires it.
func (m *merge) advance(c *cursor) {
	for c.next() {
		if c.rec.Seq > m.through {
			break
		}
		if c.rec.Seq > m.after {
			return
		}
	}
	i := slices.Index(m.open, c)
	m.open = slices.Delete(m.open, i, i+1)
	m.spare = append(m.spare, c)
}
