package volume

import "sort"

// extmap maps runs of sectors to values: sorted, not overlapping, in flat arrays without pointers, so that the garbage
// collector never scans it (a full log of 4 KiB writes has millions of entries). 20 bytes an extent plus slack.
//
// Leaves of up to leafCap extents hang off a sorted directory. dirFirst[i] is a lower bound of leaf i's first sector (0
// for the first leaf) and above every first sector of leaf i-1; an extent may reach past dirFirst[i+1] (never past leaf i+1's first extent).
// Rejected: a B+tree (three times the code; the directory of 8 million extents is 1 MB, moved once in 64 inserts) and
// a page table of sectors (4 KiB a random write on a large disk).
//
// Values of one extent advance by unit per sector, so that a split keeps pointing at the right place; values with
// flagZero don't. The caller's lock guards it.
type extmap struct {
	unit     uint64
	n        int // extents
	dirFirst []uint64
	dirLeaf  []uint32
	leaves   []*[slabLeaves]leaf
	free     []uint32
	made     uint32
}

const (
	leafCap    = 128
	slabLeaves = 16
	maxCount   = 1<<32 - 1

	flagZero = 1 << 31
)

type leaf struct {
	n     int
	first [leafCap]uint64
	val   [leafCap]uint64
	count [leafCap]uint32
}

// run is one extent of the map.
type run struct {
	first, count, val uint64
}

func (r run) end() uint64 { return r.first + r.count }

// pos names an entry; di == len(dirLeaf) is past the end.
type pos struct{ di, i int }

func (m *extmap) leaf(di int) *leaf {
	x := m.dirLeaf[di]
	return &m.leaves[x/slabLeaves][x%slabLeaves]
}

func (m *extmap) newLeaf() uint32 {
	if k := len(m.free); k > 0 {
		x := m.free[k-1]
		m.free = m.free[:k-1]
		return x
	}
	if m.made%slabLeaves == 0 {
		m.leaves = append(m.leaves, new([slabLeaves]leaf))
	}
	m.made++
	return m.made - 1
}

func (l *leaf) run(i int) run { return run{l.first[i], uint64(l.count[i]), l.val[i]} }

func (l *leaf) end(i int) uint64 { return l.first[i] + uint64(l.count[i]) }

func (l *leaf) put(i int, r run) {
	l.first[i], l.count[i], l.val[i] = r.first, uint32(r.count), r.val
}

// shift moves entries [i, n) by d places and adjusts n.
func (l *leaf) shift(i, d int) {
	copy(l.first[i+d:l.n+d], l.first[i:l.n])
	copy(l.val[i+d:l.n+d], l.val[i:l.n])
	copy(l.count[i+d:l.n+d], l.count[i:l.n])
	l.n += d
}

// after returns the index of the first entry whose first sector is beyond s.
func (l *leaf) after(s uint64) int {
	lo, hi := 0, l.n
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if l.first[mid] <= s {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// dirAt returns the leaf that would hold an extent beginning at s.
func (m *extmap) dirAt(s uint64) int {
	lo, hi := 0, len(m.dirFirst)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if m.dirFirst[mid] <= s {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return 0
	}
	return lo - 1
}

// seek returns the first entry that ends beyond s.
func (m *extmap) seek(s uint64) pos {
	if len(m.dirLeaf) == 0 {
		return pos{}
	}
	di := m.dirAt(s)
	l := m.leaf(di)
	i := l.after(s)
	if i > 0 {
		if l.end(i-1) > s {
			return pos{di, i - 1}
		}
	} else if di > 0 {
		if p := m.leaf(di - 1); p.end(p.n-1) > s {
			return pos{di - 1, p.n - 1}
		}
	}
	return m.norm(pos{di, i})
}

func (m *extmap) norm(p pos) pos {
	if p.di < len(m.dirLeaf) && p.i >= m.leaf(p.di).n {
		return pos{p.di + 1, 0}
	}
	return p
}

// at returns the entry at p; ok is false past the end.
func (m *extmap) at(p pos) (run, bool) {
	if p.di >= len(m.dirLeaf) {
		return run{}, false
	}
	return m.leaf(p.di).run(p.i), true
}

func (m *extmap) next(p pos) pos { return m.norm(pos{p.di, p.i + 1}) }

// value of r at sector s inside it.
func (m *extmap) valueAt(r run, s uint64) uint64 {
	if r.val&flagZero != 0 {
		return r.val
	}
	return r.val + (s-r.first)*m.unit
}

// clip returns the part of r inside [first, end).
func (m *extmap) clip(r run, first, end uint64) run {
	lo, hi := max(r.first, first), min(r.end(), end)
	return run{lo, hi - lo, m.valueAt(r, lo)}
}

// insert maps [first, first+count) to val, over whatever was there.
func (m *extmap) insert(first, count, val uint64) {
	for count > maxCount { // zero extents only
		m.insert1(run{first, maxCount, val})
		first, count = first+maxCount, count-maxCount
	}
	m.insert1(run{first, count, val})
}

func (m *extmap) insert1(r run) {
	p := m.seek(r.first)
	if e, ok := m.at(p); ok && e.first == r.first && e.count == r.count {
		m.leaf(p.di).val[p.i] = r.val // overwritten in place: the common case of a random writer
		return
	} else if ok && e.first < r.end() {
		m.remove(r.first, r.end())
	}
	m.add(r)
}

// add puts r where nothing is, joining it to its left neighbour when that goes on into it.
func (m *extmap) add(r run) {
	if len(m.dirLeaf) == 0 {
		m.dirFirst, m.dirLeaf = append(m.dirFirst, 0), append(m.dirLeaf, m.newLeaf())
		m.leaf(0).n = 0
	}
	di := m.dirAt(r.first)
	l := m.leaf(di)
	i := l.after(r.first)
	if i > 0 && l.end(i-1) == r.first && m.joins(l.run(i-1), r) {
		l.count[i-1] += uint32(r.count)
		return
	}
	if l.n == leafCap {
		m.split(di, i)
		m.add(r)
		return
	}
	l.shift(i, 1)
	l.put(i, r)
	m.n++
}

func (m *extmap) joins(a, b run) bool {
	return m.valueAt(a, b.first) == b.val && a.count+b.count <= maxCount
}

// split makes room in leaf di for an entry at i: in halves, or, for one that appends, with an empty right leaf, so that
// sequential writers fill their leaves.
func (m *extmap) split(di, i int) {
	at := leafCap / 2
	if i == leafCap {
		at = leafCap - 1
	}
	x := m.newLeaf()
	l, r := m.leaf(di), &m.leaves[x/slabLeaves][x%slabLeaves]
	r.n = l.n - at
	copy(r.first[:], l.first[at:l.n])
	copy(r.val[:], l.val[at:l.n])
	copy(r.count[:], l.count[at:l.n])
	l.n = at
	m.dirFirst = append(m.dirFirst, 0)
	m.dirLeaf = append(m.dirLeaf, 0)
	copy(m.dirFirst[di+2:], m.dirFirst[di+1:])
	copy(m.dirLeaf[di+2:], m.dirLeaf[di+1:])
	m.dirFirst[di+1], m.dirLeaf[di+1] = r.first[0], x
}

// remove unmaps [first, end).
func (m *extmap) remove(first, end uint64) {
	p := m.seek(first)
	e, ok := m.at(p)
	if !ok || e.first >= end {
		return
	}
	l := m.leaf(p.di)
	if e.first < first {
		l.count[p.i] = uint32(first - e.first)
		if e.end() > end {
			m.add(m.clip(e, end, e.end()))
			return
		}
		p = m.next(p)
	}
	for p.di < len(m.dirLeaf) {
		l = m.leaf(p.di)
		j := p.i
		for j < l.n && l.end(j) <= end {
			j++
		}
		stop := j < l.n
		var tail run
		if stop && l.first[j] < end {
			tail = m.clip(l.run(j), end, l.end(j)) // it may begin in the next leaf's range now
			j++
		}
		if d := j - p.i; d > 0 {
			l.shift(j, -d)
			m.n -= d
		}
		if l.n == 0 {
			m.dropLeaf(p.di)
			p.i = 0
		} else {
			p = pos{p.di + 1, 0}
		}
		if tail.count > 0 {
			m.add(tail)
		}
		if stop {
			return
		}
	}
}

// dropLeaf forgets an empty leaf. Its range falls to its left neighbour, or, for the first, to the right one.
func (m *extmap) dropLeaf(di int) {
	m.free = append(m.free, m.dirLeaf[di])
	m.dirFirst = append(m.dirFirst[:di], m.dirFirst[di+1:]...)
	m.dirLeaf = append(m.dirLeaf[:di], m.dirLeaf[di+1:]...)
	if len(m.dirLeaf) == 0 {
		m.leaves, m.free, m.made = nil, nil, 0
	} else {
		m.dirFirst[0] = 0
	}
}

// removeMatch unmaps those parts of [first, end) whose value, shifted right by shift, equals want.
func (m *extmap) removeMatch(first, end uint64, shift uint, want uint64) {
	for first < end {
		r, ok := m.at(m.seek(first))
		if !ok || r.first >= end {
			return
		}
		c := m.clip(r, first, end)
		if c.val>>shift == want {
			m.remove(c.first, c.end())
		}
		first = c.end()
	}
}

// pieces returns the sector at which a range beginning at first has met limit extents, or end: how far one bounded step
// of a huge discard may go.
func (m *extmap) pieces(first, end uint64, limit int) uint64 {
	p := m.seek(first)
	for ; limit > 0; limit-- {
		r, ok := m.at(p)
		if !ok || r.first >= end {
			return end
		}
		p = m.next(p)
	}
	if r, ok := m.at(p); ok && r.first < end {
		return max(r.first, first+1)
	}
	return end
}

// runs calls fn for every part of the map inside [first, end), in order.
func (m *extmap) runs(first, end uint64, fn func(run) error) error {
	for p := m.seek(first); ; p = m.next(p) {
		r, ok := m.at(p)
		if !ok || r.first >= end {
			return nil
		}
		if err := fn(m.clip(r, first, end)); err != nil {
			return err
		}
	}
}

// bytes is the memory held.
func (m *extmap) bytes() int64 {
	return int64(len(m.leaves))*slabLeaves*int64(leafBytes) + int64(cap(m.dirFirst))*12
}

const leafBytes = 8 + leafCap*20

// sorted reports whether the directory invariants hold; for tests.
func (m *extmap) sorted() bool {
	last, n := uint64(0), 0
	for di := range m.dirLeaf {
		l := m.leaf(di)
		if l.n == 0 || l.first[0] < m.dirFirst[di] || di+1 < len(m.dirFirst) && l.first[l.n-1] >= m.dirFirst[di+1] {
			return false
		}
		for i := range l.n {
			if l.first[i] < last || l.count[i] == 0 {
				return false
			}
			last = l.end(i)
			n++
		}
	}
	return n == m.n && sort.SliceIsSorted(m.dirFirst, func(i, j int) bool { return m.dirFirst[i] < m.dirFirst[j] })
}
