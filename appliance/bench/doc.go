// Package bench measures the engine against references that run beside it. It holds tests only:
//
//	make bench                        the whole table, medians of several runs
//	go test ./appliance/bench -v      every row for a moment, so that it cannot rot
//
// A row is a test that calls report; TestMain prints the table. Nothing is asserted about speed: the machine is shared.
// GLIDEFS_BENCH=5s makes the rows measure for that long a run.
package bench
