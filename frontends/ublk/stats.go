package ublk

import "sync/atomic"

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
}

// Stats of all workers.
func (s *Server) Stats() Stats {
	var t Stats
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
