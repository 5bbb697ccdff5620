package ublk

import "time"

// pace says how many completions a worker waits for. Each return from the kernel costs it the same, for one completion
// or for thirty; and waiting for more than come costs those that are there.
//
// The ring's operations end whatever else happens, so half of what they bring is waited for: they take about as long as
// each other. Never more than they bring without the guest's doing: the kernel lets the end of an operation wake only
// those who wait for no more completions than there are, so a worker that waited for one read and the request after it
// had both lie until its patience ended, two milliseconds for each read.
//
// Reads of resident bytes have ended when the waiting begins, so they are waited for as well, on top of what else comes:
// one more request for a reader that has one at a time.
//
// A worker with nothing in flight that served several requests at once, or whose reads the kernel has answered, expects
// as many again, but no longer than it took to serve requests last: so it loses at most as much time as it worked, on a
// machine of any speed. One that finds fewer expects fewer, and a single request is never waited for company.
type pace struct {
	parts  int // ring operations in flight
	linked int // those among them that a request may follow without us, as they are answered in the kernel
	// resident are those among the linked that the kernel will serve from memory as they are handed in.
	resident int

	alone bool // a silent read is in flight

	served   int // requests that came in the running turn
	answered int // reads that the kernel answered
	expect   int
	took     time.Duration
	began    time.Time
}

const (
	// partsLimit bounds how long all else waits for ring operations.
	partsLimit = 2 * time.Millisecond
	// aloneLimit bounds how long the files of a silent read are held when no request follows.
	aloneLimit = 20 * time.Millisecond
	maxExpect  = 16
)

// next returns what to wait for; a negative limit means none.
func (p *pace) next() (n int, limit time.Duration) {
	parts, linked := p.parts-p.resident, p.linked-p.resident
	if n = (parts + linked) / 2; n > 1 {
		return p.resident + n, partsLimit
	}
	if parts == 0 && p.expect > 1 {
		return p.resident + p.expect, min(p.took, partsLimit)
	}
	if p.resident > 0 {
		return p.resident + 1, partsLimit
	}
	if p.alone {
		return 1, aloneLimit
	}
	return 1, -1
}

// begin and end enclose the work of a turn, which counts in served and answered.
func (p *pace) begin() { p.began, p.served, p.answered, p.resident = time.Now(), 0, 0, 0 }

func (p *pace) end() {
	if p.served > 0 {
		p.took = time.Since(p.began)
	}
	p.expect = min(max(p.served, p.answered), maxExpect)
}
