package vfs

import "slices"

const pageSize = 4096

type page [pageSize]byte

// image is the content of a file. Pages are never modified once they are in an image, so images share them; a nil
// page is zeros. What lies beyond size in the last page is zeros.
type image struct {
	size   int64
	pages  []*page
	shared bool // the slice belongs to another image too
}

func (m *image) fork() image {
	// Only ever set on an image whose owner is locked; an immutable start state is shared from the beginning.
	if !m.shared {
		m.shared = true
	}
	return *m
}

// own makes the slice this image's own, at least n pages long.
func (m *image) own(n int) {
	if m.shared {
		m.pages, m.shared = slices.Clone(m.pages), false
	}
	for len(m.pages) < n {
		m.pages = append(m.pages, nil)
	}
}

// change applies a write or a change of size. Changes before it may be missing, so the size that a write or an
// allocation led to when it was made may be too much or too little here.
func (m *image) change(ch *change) {
	switch ch.op {
	case OpWrite:
		m.put(ch.data, ch.off)
		m.truncate(max(m.size, min(ch.size, ch.off+int64(len(ch.data)))))
	case OpAllocate:
		m.truncate(max(m.size, ch.size))
	case OpTruncate:
		m.truncate(ch.size)
	}
}

// put writes whole sectors, whatever the size. It keeps references to data.
func (m *image) put(data []byte, off int64) {
	m.own(int((off + int64(len(data)) + pageSize - 1) / pageSize))
	for len(data) > 0 {
		i, in := off/pageSize, off%pageSize
		n := min(pageSize-in, int64(len(data)))
		if n == pageSize {
			m.pages[i] = (*page)(data)
		} else {
			p := m.copyPage(int(i))
			copy(p[in:], data[:n])
		}
		data, off = data[n:], off+n
	}
}

// tear writes some of the sectors of a write.
func (m *image) tear(ch *change, luck luck) {
	for i := 0; i < len(ch.data); i += sector {
		if luck.rng.IntN(2) == 0 {
			m.put(ch.data[i:i+sector], ch.off+int64(i))
		}
	}
}

func (m *image) copyPage(i int) *page {
	p := new(page)
	if m.pages[i] != nil {
		*p = *m.pages[i]
	}
	m.pages[i] = p
	return p
}

func (m *image) truncate(size int64) {
	n := int((size + pageSize - 1) / pageSize)
	m.size = size
	if len(m.pages) < n || len(m.pages) == n && size%pageSize == 0 {
		return
	}
	m.own(0)
	m.pages = m.pages[:n:n]
	if in := size % pageSize; in > 0 && m.pages[n-1] != nil {
		clear(m.copyPage(n - 1)[in:])
	}
}

// read returns how many bytes there are.
func (m *image) read(p []byte, off int64) int {
	if off >= m.size {
		return 0
	}
	p = p[:min(int64(len(p)), m.size-off)]
	for done := 0; done < len(p); {
		i, in := (off+int64(done))/pageSize, (off+int64(done))%pageSize
		part := p[done:min(len(p), done+int(pageSize-in))]
		if i < int64(len(m.pages)) && m.pages[i] != nil {
			copy(part, m.pages[i][in:])
		} else {
			clear(part)
		}
		done += len(part)
	}
	return len(p)
}
