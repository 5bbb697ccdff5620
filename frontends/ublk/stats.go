package ublk

import (
	"sync/atomic"

	"glidefs-appliance/frontends"
)

// counters of one worker.
type counters struct {
	inline, deferred, slow, waits, zeroCopied, copied atomic.Uint64
}

// Stats counts since the server was opened.
type Stats struct {
	Inline     uint64 // requests that the workers' threads served
	Deferred   uint64 // handed to goroutines: cold reads, full log, flushes, discards
	Slow       uint64 // started again because a ring operation failed
	BufferWait uint64 // requests that found no free buffer
	ZeroCopied uint64 // bytes the kernel moved between the guest's pages and files
	Copied     uint64 // bytes that went through this process
	Steps      []Step // of making devices and taking them back, in the order they were first seen
}

// Stats of all workers.
func (s *Server) Stats() Stats {
	t := Stats{Steps: s.took.list()}
	for _, w := range s.workers {
		c := &w.count
		t.Inline += c.inline.Load()
		t.Deferred += c.deferred.Load()
		t.Slow += c.slow.Load()
		t.BufferWait += c.waits.Load()
		t.ZeroCopied += c.zeroCopied.Load()
		t.Copied += c.copied.Load()
	}
	return t
}

// Sizes of the requests to each disk that is being served, by name.
func (s *Server) Sizes() map[string]frontends.SizeCounts {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]frontends.SizeCounts, len(s.mu.devices))
	for name, d := range s.mu.devices {
		if d == nil {
			continue
		}
		var sum frontends.SizeCounts
		for i := range d.sizes {
			sum.Add(&d.sizes[i])
		}
		all[name] = sum
	}
	return all
}

// measure counts a request's size where only its worker counts.
func (w *worker) measure(r *request) {
	sizes := &r.sh.dev.sizes[w.index]
	switch r.op {
	case opRead:
		sizes.Count(frontends.OpRead, int64(r.len))
	case opWrite:
		sizes.Count(frontends.OpWrite, int64(r.len))
	case opDiscard, opWriteZeroes:
		sizes.Count(frontends.OpClear, int64(r.len))
	}
}
