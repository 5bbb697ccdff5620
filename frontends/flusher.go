package frontends

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// BecomeFlusher tells the kernel that this process serves block I/O (PR_SET_IO_FLUSHER, Linux 5.6), so that its own
// allocations and writes don't wait for write-back of the file systems that lie on its disks: that would be a deadlock.
// It is for all threads: later ones inherit what prctl sets. It needs CAP_SYS_RESOURCE; without it there is neither a
// loop device over our files nor a ublk device. Programs with cgo (the race detector) cannot do it. Once is enough, and
// the call waits for threads that are in the kernel.
var BecomeFlusher = sync.OnceFunc(func() {
	_, _, _ = syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0, 0)
})
