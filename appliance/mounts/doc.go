// Package mounts is what the commands mount, umount and attach need of the host: loop devices over the files of the FUSE
// frontend, file systems on them, the mount table, and the removal of what a dead daemon left behind. It runs in the
// command, so that file systems are mounted in the caller's namespace, and knows nothing of the daemon.
//
//	DIR ── ext4, xfs, btrfs ── /dev/loopN ── <fuse dir>/<name> ── daemon
//	         Mount, Unmount     Attach          frontends/fuse
//
// A loop device is configured with autoclear: it lives as long as somebody has it open. The Loop that Attach returns is
// such an opener, for as long as the command makes the file system; then the mount is. So nothing is left over when the
// command is killed half-way, and umount detaches the loop device without asking.
//
// Discard. File systems are mounted with discard. Measured on this stack with the Go source tree (12,800 files, 157 MB),
// copied, synced and deleted: ext4 sends about 20 discards after its journal commits, xfs 20, btrfs 130; deleting takes
// 0.6 s with and without. Each is one record in the write log, whatever its length. Without discard, log and store keep
// the garbage until somebody runs fstrim. btrfs gets discard=sync, since discard=async sits on discards for minutes and
// drops them at the unmount. mkfs does not discard: the disk is blank.
//
// What can block: everything here may wait for the disk. What looks at mounts of unknown health (CleanDead) gives a probe
// two seconds and takes no answer for "alive".
package mounts
