// Package ublk serves disks as block devices, /dev/ublkbN, through the kernel's ublk driver.
//
//	guest ──► /dev/ublkbN ──► driver ──► CQE: tag T of queue Q has a request     (FETCH or COMMIT_AND_FETCH completes)
//	                                       │
//	          ┌────────────────────────────▼─────────────── worker: a locked thread with one ring, for many devices
//	          │ READ   MapRead ─► READ_FIXED of each extent ───────────────┐
//	          │ WRITE  TryReserve ─► WRITE_FIXED into each extent ─► Commit ┤   (zero copy)
//	          │        ... the same through a buffer of the worker's pool ──┤   (USER_COPY)
//	          │        short ones: pread, one pwrite for many ─► Commit ────┤   (both)
//	          │ what may block ─► goroutine ─► inbox, eventfd ──────────────┤
//	          └─────────────────────────────────────────────── COMMIT_AND_FETCH: the result, and T is free again
//
// Two ways for the bytes, chosen when a device is made. Zero copy (6.17 and newer): the driver puts the pages of each
// request into the ring's buffer table (AUTO_BUF_REG), and fixed reads and writes move them from and to local files.
// USER_COPY (6.5 and newer): pread and pwrite of the char device copy them. A zero-copy device can do both; it copies
// what cannot be registered, what no plan of local extents describes, and short writes.
//
// A request is answered with its full length or -errno: a short count means something else in every other kernel.
//
// # Threads
//
// The control thread sends the control commands of all devices; when the kernel loses one, another takes over. Workers never wait for it, nor it for them: START_DEV,
// STOP_DEV and whoever opens a device wait for requests that the workers serve. A tag belongs to the thread that fetched
// it: when that ends, in order or killed, the kernel takes its tags back on it (uring.Tether), and only then is its ring closed.
//
// # Life of a device
//
//	ADD_DEV, SET_PARAMS, open and map /dev/ublkcN, FETCH every tag, START_DEV, search for partitions Add
//	START_USER_RECOVERY, open and map, FETCH every tag, END_USER_RECOVERY                            Add, after a crash
//	STOP_DEV while workers serve; every tag comes back with ENODEV; unmap, close; DEL_DEV            Remove
//	close everything: the device waits, QUIESCED, for the next process; its users with it            Close
//
// # Lock order
//
//	Server.looking devices left by a process before; held across commands that look
//	Server.mu      devices by name and the tags of each worker; not held across commands
//	worker.inbox   what other goroutines hand to a worker
//	control.mu     commands to send
package ublk
