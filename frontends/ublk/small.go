package ublk

import (
	"hash/crc32"

	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/ublk/uring"

	"golang.org/x/sys/unix"
)

// Short writes are copied, also those of zero-copy devices: from the char device to the small area, and for all of a
// batch that the log placed one after the other with one pwrite into the page cache.
//
//	batch     T3 4k    T7 4k    T9 8k    T4 4k             pread each
//	           │        │        │        │
//	area      [  4k   |   4k   |     8k     |   4k   ]      checksum each
//	           └───────────┬───────────────┘    │
//	log       segment 5 ...█████████████████]  segment 6 [████   pwrite each stretch, then one commit, then the answers
//
// A WRITE_FIXED ends when the disk has the bytes, so each turns around twice, for itself and for its answer, and waits
// for a disk although P3 asks for the page cache only. Through the page cache it is no better: ext4 takes buffered
// writes that must not block on a thread of their own only. The checksums pay back too: a flush of nothing else is one
// sync, not two.
const smallArea = 256 << 10

// pageBytes: of a block that is written in part the page cache would have to read the rest.
const pageBytes = 4096

// small is what a worker has gathered of a batch.
type small struct {
	mem  []byte
	used int
	reqs []*request // whose bytes lie in mem, one after the other
}

func (g *small) open() (err error) {
	g.mem, err = uring.Map(smallArea)
	return err
}

// short tells whether a write with its room reserved is to be copied.
func short(r *request) bool {
	if r.len > frontends.ShortWrite {
		return false
	}
	for i := range r.place.Extents {
		if e := &r.place.Extents[i]; (e.Off|e.Len)%pageBytes != 0 {
			return false
		}
	}
	return true
}

// gather fetches the bytes of a short write.
func (w *worker) gather(r *request) {
	g := &w.small
	if len(g.mem)-g.used < r.len {
		w.pour()
	}
	src := g.mem[g.used:][:r.len]
	if err := r.copyIn(src); err != nil {
		w.slow(r)
		return
	}
	w.count.copied.Add(uint64(r.len))
	g.used += r.len
	g.reqs = append(g.reqs, r)
	r.place.Sums = r.place.Sums[:0]
	for i := range r.place.Extents {
		n := r.place.Extents[i].Len
		r.place.Sums = append(r.place.Sums, crc32.Checksum(src[:n], castagnoli))
		src = src[n:]
	}
}

// pour writes what was gathered to the log, for the commit that ends the batch.
func (w *worker) pour() {
	g := &w.small
	if len(g.reqs) == 0 {
		return
	}
	s := stretch{}
	for i, r := range g.reqs {
		for k := range r.place.Extents {
			e := &r.place.Extents[k]
			if !s.goesOn(e) {
				g.write(&s)
				s = stretch{fd: e.FD, off: e.Off, at: s.at + s.n, first: i}
			}
			s.n, s.last = s.n+int(e.Len), i
		}
	}
	g.write(&s)
	for i, r := range g.reqs {
		g.reqs[i] = nil
		if r.failed {
			w.slow(r)
		} else {
			w.later(r, &r.sh.commits)
		}
	}
	g.reqs, g.used = g.reqs[:0], 0
}

// stretch is a run of bytes of a file that lie in the area in the same order: of requests first to last.
type stretch struct {
	fd          int
	off         int64
	at, n       int
	first, last int
}

func (s *stretch) goesOn(e *frontends.Extent) bool {
	return s.n > 0 && s.fd == e.FD && s.off+int64(s.n) == e.Off
}

// write marks the requests of a stretch that cannot be written: they go the slow way, which knows what the error means.
func (g *small) write(s *stretch) {
	for done := 0; done < s.n; {
		n, err := unix.Pwrite(s.fd, g.mem[s.at+done:s.at+s.n], s.off+int64(done))
		switch {
		case err == unix.EINTR:
		case err != nil || n == 0:
			for _, r := range g.reqs[s.first : s.last+1] {
				r.failed = true
			}
			return
		default:
			done += n
		}
	}
}
