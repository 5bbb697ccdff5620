package ublk

import (
	"os"
	"path/filepath"
)

// markDir holds an empty file for each block device of ours, by its name in /dev. The udev rule goes by it; it is there
// before the kernel announces the device.
const markDir = "/run/glidefs-appliance/ublk"

func markPath(id uint32) string { return filepath.Join(markDir, filepath.Base(blockPath(id))) }

// mark never fails a device: without it udev leaves the kernel's defaults.
func (s *Server) mark(id uint32) {
	err := os.MkdirAll(markDir, 0o755)
	if err == nil {
		err = os.WriteFile(markPath(id), nil, 0o644)
	}
	if err != nil {
		s.o.Log.Warn("udev will not know this device", "device", id, "err", err)
	}
}

func unmark(id uint32) { _ = os.Remove(markPath(id)) }
