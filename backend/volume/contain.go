package volume

import (
	"fmt"
	"runtime/debug"
)

// A panic means that an invariant of one disk is broken. That disk ends: nothing new goes from memory to its log or the
// store, and the log stays for the next attach; the daemon goes on for the others. So what can panic holds Volume.mu, the
// slots and the memory that disks share in a way that gives them back (defer), and what the disk does on goroutines of its
// own is contained.

// Panicked ends the volume after a panic in what was done for it, by itself or by a frontend. It does not wait for what
// runs. It returns what every operation returns from then on.
func (v *Volume) Panicked(value any, stack []byte) error {
	v.host.Log.Error("panic in the work of a disk; it is failed, its log is kept", "disk", v.name, "panic", value, "stack", string(stack))
	v.die(fmt.Errorf("%w: panic: %v", ErrFailed, value))
	v.cancel()
	return v.ended()
}

// contain runs a part of the disk's own work.
func (v *Volume) contain(fn func()) {
	defer func() {
		if p := recover(); p != nil {
			_ = v.Panicked(p, debug.Stack())
		}
	}()
	fn()
}

// try is contain for what has an error.
func (v *Volume) try(fn func() error) (err error) {
	done := false
	v.contain(func() { err, done = fn(), true })
	if !done {
		return v.ended()
	}
	return err
}
