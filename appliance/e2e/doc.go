// Package e2e holds end-to-end tests: the real binary as a real daemon on this machine, with real FUSE mounts, loop
// devices, file systems and S3 server, ended with kill -9 at bad moments. It needs root.
//
//	machine   a host: a state dir, a cache and a configuration, and the commands that are typed there
//	stamps    sectors that tell which write they come from, and what was acknowledged
//	history   writes and discards in order, to find out up to which one a disk goes
//
// A test has its machines and its store for itself. Machines clean up after themselves on every path: they end the
// processes that have their state dir in the arguments, which nobody else's have, and unmount what is mounted below
// their folder. Nothing sleeps to give something time; the one thing that polls is eventually.
//
// The promises and where they are put to the test:
//
//	P1 writes without the store   outage_test.go      P6 bytes are verified   cli's scripts
//	P2, P3 kill -9                kill_test.go        P7 conformance          conformance_test.go
//	P4 a prefix, never mixed      lost_test.go        P9 nothing hangs        outage_test.go, status_test.go, stop_test.go
//	P5 one writer                 owners_test.go      P10 idle                idle_test.go
package e2e
