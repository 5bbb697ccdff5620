// Package doctor tells what this host offers, in the order in which a daemon would take it.
package doctor

import (
	"glidefs-appliance/frontends/fuse"
	"glidefs-appliance/frontends/ublk"
)

// Frontend is a way to give a disk to this host.
type Frontend struct {
	Name   string `json:"frontend"`
	Usable bool   `json:"usable"`
	Reason string `json:"reason"` // why not, in words; what it offers, if it is usable
}

// Frontends tries each. It may load kernel modules and, once per boot, serve a scratch device for a moment.
func Frontends() []Frontend {
	s := ublk.Verified()
	return []Frontend{
		verdict("ublk-zc", s.ZeroCopy, "a block device; the kernel moves the bytes between its users and local files", s.Reason),
		verdict("ublk-copy", s.UserCopy, "a block device; the bytes are copied once more", s.Reason),
		file(fuse.Usable()),
	}
}

func verdict(name string, usable bool, offer, trouble string) Frontend {
	if usable {
		return Frontend{name, true, offer}
	}
	return Frontend{name, false, trouble}
}

func file(err error) Frontend {
	if err != nil {
		return Frontend{"fuse", false, err.Error()}
	}
	return Frontend{"fuse", true, "a file; mount puts a loop device over it"}
}
