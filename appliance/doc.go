// Package appliance is the running daemon: it wires the engine together, serves its API, and ends in order.
//
// # The code
//
//	cli             one file per command; talks to the daemon over its socket, mounts file systems itself
//	appliance       Serve: the supervisor and the daemon
//	  config        the configuration file, sizes, where everything lives
//	  statedir      the folder of a daemon: lock, identity, which store
//	  exports       the disks from attach to detach; ls, rm, verify, gc
//	  api           the protocol
//	  server client its two ends
//	  statuspage    what `status` shows when nobody answers
//	  supervisor    the parent that starts a daemon again
//	  mounts        loop devices, file systems, mounts; runs in the command, in its mount namespace
//	  logfile notify metrics
//	frontends       fuse
//	backend         volume, and below it wlog, cache, manifest, pack, gc, store, vfs
//
// # Words
//
//	disk      what a user has: a name, a size, bytes. The engine calls it a volume.
//	attach    open a disk for this host and make it a file or block device; detach gives it up
//	store     the object store that the disks live in
//	state dir the folder of one daemon: write logs, identity. Precious until everything is uploaded.
//	cache     verified pieces of disks on the local SSD. Disposable.
//
// # Start
//
//	mount, attach, ... ── dial daemon.sock ── nobody ──► serve --background (setsid)
//	                                                        │ supervisor
//	                                                        └──► daemon: lock, identity, store, probe (first time),
//	                                                             listen, report ready, open disks of a dead daemon
//
// # End
//
// A daemon that a command started ends when its last disk is detached and its last client has gone; one that was started
// with `serve` stays, unless --until-idle. SIGTERM and SIGINT end it at once, in this order, and nothing is uploaded that
// was not under way, because a log that is safe on disk can wait and the person who stops a machine may not:
//
//  1. the socket: no new requests (503), requests that run are cancelled
//  2. the frontends: users of the disks get EIO from here on
//  3. the volumes: flush; mark as closed in the store what is all there
//  4. the clean cache, the status page, the lock of the state dir
//
// A daemon whose state dir is gone (guard) ends in the same order, but for this: before 3 it takes the block devices away
// too, and uploads, since what is in its write logs has no name any more and would be lost. It leaves alone what is at the
// path now, which may be another daemon's. New writes get errors rather than a FLUSH that no power cut would respect.
//
// # Lock order
//
// Packages lock inward: a lock of an outer package may be held while an inner one's is taken, never the other way around.
//
//	exports.names             one disk's attach, detach, ...; held across I/O
//	  exports.front           the FUSE mount
//	  exports.blocks          the ublk server
//	    fuse.Server
//	  exports.Manager
//	    volume.Volume         and its own inside: see package volume
//	      wlog, cache         see there
//	appliance.life            a leaf: clients and whether the daemon ends
package appliance
