// Package fuse serves virtual disks as files: one mount is a directory, one file per export, mode 0600, as long as the
// disk. It is the frontend of hosts without ublk and of users who are not root. It is the only importer of go-fuse.
//
//	user ──► loop device or the file itself
//	           │ open: FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES, no write-back cache
//	kernel   /dev/fuse  requests of up to 1 MiB
//	           │
//	go-fuse  one goroutine a request
//	           │
//	rawFS ──► table: node id ─► export ─► gate ─► frontends.Disk
//
// What a request means:
//
//	read                     Disk.ReadAt into go-fuse's buffer; or, from spliceMin bytes on and when the bytes lie in one
//	                         place of one local file (frontends.Mapper), a splice from that file. Past the end: EOF.
//	write                    Disk.WriteAt, with fua when the handle or the call says O_DSYNC or O_SYNC. A write across
//	                         the end is cut there and one beyond it is ENOSPC, as on a block device.
//	fsync, fdatasync         Disk.Flush. close does nothing: what was acknowledged survives the process anyway.
//	fallocate punch          zeros from then on: Disk.Discard for the whole sectors, Disk.WriteZeroes for the edges
//	fallocate zero range     Disk.WriteZeroes
//	truncate to another size EPERM; chmod, chown, rename, unlink, create: EPERM or ENOSYS
//	statfs                   4096-byte blocks, which a loop device takes for its discard granularity
//
// The kernel's FUSE write-back cache stays off: with it the kernel acknowledges writes that we have not seen.
//
// A FUSE INTERRUPT (any signal at the caller, a Go program's preemption signals included) does not end a request: disks
// don't return EINTR. It ends one that waits, and only when the caller is dying or the export is being evicted; see
// request.Done.
//
// Failure modes. The daemon dies, or the connection ends without an unmount (see Server.serve): users get ENOTCONN, and
// CleanDead takes the mount away at the next start. A handler
// panics: that export is fenced (EIO from then on) and Options.OnPanic learns it. An export is evicted while files are
// open: requests in flight end, then every operation on these handles is EIO.
//
// What exports share. The kernel lets maxBackground asynchronous requests of all files of a mount be under way at a time, and
// then lets none more begin, reads neither. A loop device has up to 128 of them. So where three loop devices and more wait for
// room in their logs at once with all they have, reads of others wait with them, until an upload or a forced detach ends that.
// Nothing on our side can take a request back. A larger bound would cost 1 MiB of buffer a request; a smaller depth of the
// loop devices would stay with whoever uses them next; a mount for each export would cost thousands of them.
//
// Lock order:
//
//	Server.mu      names, nodes, open counts; never held across I/O, a Disk call or a notification to the kernel
//	request.mu     one request's context; a leaf
//
// The kernel may call Lookup and Forget while it answers a notification of ours, so notifications are sent without locks.
package fuse
