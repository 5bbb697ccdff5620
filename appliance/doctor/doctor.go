// Package doctor tells what this host offers, in the order in which a daemon would take it.
package doctor

import (
	"fmt"
	"os"
	"strings"

	"glidefs-appliance/frontends/fuse"
	"glidefs-appliance/frontends/ublk"
)

// Frontend is a way to give a disk to this host.
type Frontend struct {
	Name   string `json:"frontend"`
	Usable bool   `json:"usable"`
	Reason string `json:"reason"` // why not, in words; what it offers, if it is usable
	// SelfTest is "passed" or what went wrong; "" where there is none, or nothing to test.
	SelfTest string `json:"self_test,omitempty"`
}

// Frontends tries each. It may load kernel modules and, once per boot, serve a scratch device for a moment.
func Frontends() []Frontend {
	s := ublk.Verified()
	return []Frontend{
		device("ublk-zc", s.ZeroCopy, true, "a block device; the kernel moves the bytes between its users and local files", s.Reason),
		device("ublk-copy", s.UserCopy, false, "a block device; the daemon copies the bytes", s.Reason),
		file(fuse.Usable()),
	}
}

func device(name string, usable, zeroCopy bool, offer, trouble string) Frontend {
	if !usable {
		return Frontend{Name: name, Reason: trouble}
	}
	f := Frontend{Name: name, Usable: true, Reason: offer, SelfTest: "passed"}
	if err := ublk.Tested(zeroCopy); err != nil {
		f.SelfTest = "failed: " + err.Error()
	}
	return f
}

func file(err error) Frontend {
	if err != nil {
		return Frontend{Name: "fuse", Reason: err.Error()}
	}
	return Frontend{Name: "fuse", Usable: true, Reason: "a file; mount puts a loop device over it"}
}

// Kernel tells whether the one that runs is among those on which block devices are not tried.
func Kernel() string {
	if why := ublk.DeniedHere(); why != "" {
		return why
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("Kernel %s is none of those that crash when a ublk device is added: %s.", strings.TrimSpace(string(release)), ublk.Denied)
}
