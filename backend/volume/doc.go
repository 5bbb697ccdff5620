// Package volume is one virtual disk: it joins the write log, the clean cache and the packs in the object store into
// reads, writes, flushes and discards, and moves the log's content to the store in write order.
//
//	WriteAt ──► wlog (place, record) ──► map of the log ──► acknowledged
//	                 │
//	                 └─ uploader: cut ─► fold ─► pack ─► PUT ─► Flush ─► manifest PUT ─► publish view ─► settle
//	ReadAt  ──► map of the log ──► view: tail packs, newest first, then one pack per level ──► clean cache ──► ranged GET
//
// # State
//
// The map of the log (extmap) says which sectors are in which segment. A view is an immutable picture of the manifest:
// its tail and the roots of its levels. The uploader publishes a new view before it lets the log forget what the view
// holds, and a reader takes the map's answer and the view under one lock, so it never misses both.
//
//	settled (in the store's manifest) <= durable (survives a power cut) <= committed (in the record files) <= appended
//
// # Lock order
//
//	Volume.edge      read-modify-write of edge sectors (FUSE writes at odd bytes): a turn, waited for with a context
//	  Volume.reads   this disk's part of the memory for cold reads; waited for with a context
//	    shared.reads the host's; likewise
//	  Volume.mu      map of the log, view, upload watermarks; never held across I/O
//	    wlog         its own
//	Volume.manifest  a turn, one update at a time; held across requests, so waited for with a context and never with mu held
//	  Volume.mu
package volume
