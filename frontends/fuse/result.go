package fuse

import (
	"sync"

	"glidefs-appliance/frontends"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// spliceMin is where a splice gets cheaper than a copy: it saves copying the bytes once and costs five system calls
	// instead of two. Measured on a page-cached file at QD16 on 2 CPUs, splice to copy: 4k 0.63, 16k 0.75, 32k 0.88,
	// 64k 1.0, 128k 0.91 to 1.03 from one machine to the next, 256k 1.2, 512k 1.25.
	spliceMin = 256 << 10
	// spliceMax keeps header and data below the size an unprivileged pipe may have (1 MiB by default).
	spliceMax = 512 << 10
	pageSize  = 4096
)

// spliced is a reply whose bytes lie in one place of a local file. It holds the plan, and a place in the export's gate,
// until go-fuse has written the reply: the pipe refers to pages of the file, and the kernel copies from them while it
// takes the reply. go-fuse calls Done after that, on every path.
type spliced struct {
	e    *export
	plan frontends.Plan
}

var splicedPool = sync.Pool{New: func() any { return new(spliced) }}

// splice maps [off, off+n) and returns nil if it can't be spliced.
func (e *export) splice(off, n int64) *spliced {
	if e.mapper == nil || n < spliceMin || n > spliceMax || n%pageSize != 0 {
		return nil
	}
	r := splicedPool.Get().(*spliced)
	if e.mapper.MapRead(off, n, &r.plan) && spliceable(r.plan.Extents) && e.gate.enter() {
		r.e = e
		return r
	}
	r.plan.Release()
	splicedPool.Put(r)
	return nil
}

// spliceable wants one extent of whole pages. Bytes across a page more need a pipe slot more than go-fuse reckons with,
// and a pipe that is too short would make the reply short.
func spliceable(x []frontends.Extent) bool {
	return len(x) == 1 && x[0].FD >= 0 && x[0].Off%pageSize == 0
}

// Seekable is what go-fuse splices from.
func (r *spliced) Seekable() (fd uintptr, off int64, n int) {
	x := r.plan.Extents[0]
	return uintptr(x.FD), x.Off, int(x.Len)
}

// Bytes serves when the splice failed, for want of pipes for example.
func (r *spliced) Bytes(buf []byte) ([]byte, fuse.Status) {
	x := r.plan.Extents[0]
	for done := 0; done < int(x.Len); {
		n, err := unix.Pread(x.FD, buf[done:x.Len], x.Off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if n <= 0 || err != nil {
			return nil, fuse.EIO
		}
		done += n
	}
	return buf[:x.Len], fuse.OK
}

func (r *spliced) Size() int { return int(r.plan.Extents[0].Len) }

func (r *spliced) Done() {
	r.plan.Release()
	r.e.gate.leave()
	r.e = nil
	splicedPool.Put(r)
}
