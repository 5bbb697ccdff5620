// Package uring is the part of io_uring that a ublk server needs, on raw system calls.
//
//	     Get, Prep...                    Reap
//	        │                              ▲
//	┌───────▼────────┐             ┌───────┴────────┐
//	│ SQ: tail ours, │             │ CQ: head ours, │      both mapped from the kernel; each side owns one end,
//	│ head kernel's  │             │ tail kernel's  │      the other is read with acquire, written with release
//	└───────┬────────┘             └───────▲────────┘
//	        └──────► io_uring_enter ───────┘             Submit, Wait: one call may do both
//
// A Ring belongs to the OS thread that made it (SINGLE_ISSUER: the kernel refuses any other with EEXIST). So the
// goroutine that calls Setup has called runtime.LockOSThread before and makes every later call; Waker is the exception,
// and Close. It must not return while requests are in flight, but to have them cancelled: see Tether.
//
// What an SQE points to must stay where it is until the completion: memory from Map, never a Go stack or a uintptr to the
// heap that nothing else holds.
package uring
