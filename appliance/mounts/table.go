package mounts

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// Info is one mount.
type Info struct {
	Dir      string // resolved
	Source   string // the device, for file systems that have one
	FSType   string
	ReadOnly bool
	Backing  string // the file behind Source if that is a loop device
}

func newInfo(m *mountinfo.Info) Info {
	return Info{
		Dir: m.Mountpoint, Source: m.Source, FSType: m.FSType,
		ReadOnly: slices.Contains(strings.Split(m.Options, ","), "ro"),
		Backing:  BackingFile(m.Source),
	}
}

// At tells what is mounted at dir, on top if it is more than one. It asks the mount table only, so it does not block on
// a dead mount.
func At(dir string) (Info, bool, error) {
	dir, err := resolve(dir)
	if err != nil {
		return Info{}, false, err
	}
	found, err := where(func(m *mountinfo.Info) bool { return m.Mountpoint == dir })
	if err != nil || len(found) == 0 {
		return Info{}, false, err
	}
	return found[len(found)-1], true, nil
}

// Of lists where a device is mounted.
func Of(dev string) ([]string, error) {
	found, err := where(func(m *mountinfo.Info) bool { return m.Source == dev })
	return dirs(found), err
}

// Places tells where devices, and files through their loop devices, are mounted.
type Places map[string][]string

// ReadPlaces looks at the mount table once, for who asks about many disks. Files in fuseDir are found also when the FUSE
// mount that they were in has been taken away.
func ReadPlaces(fuseDir string) (Places, error) {
	all, err := where(func(*mountinfo.Info) bool { return true })
	p := Places{}
	for _, m := range all {
		p[m.Source] = append(p[m.Source], m.Dir)
		if m.Backing != "" {
			file := or(FileOf(m.Source, fuseDir), m.Backing)
			p[file] = append(p[file], m.Dir)
		}
	}
	return p, err
}

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// below lists what is mounted under dir.
func below(dir string) ([]string, error) {
	found, err := where(func(m *mountinfo.Info) bool { return strings.HasPrefix(m.Mountpoint, dir+"/") })
	return dirs(found), err
}

// where returns the mounts that match, in the order they were made.
func where(match func(*mountinfo.Info) bool) ([]Info, error) {
	table, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return !match(m), false })
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	found := make([]Info, len(table))
	for i, m := range table {
		found[i] = newInfo(m)
	}
	return found, nil
}

func dirs(found []Info) []string {
	var names []string
	for _, m := range found {
		names = append(names, m.Dir)
	}
	return names
}

// resolve makes dir absolute and free of symbolic links. Only the last element may be missing, or a mount that is dead.
func resolve(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if fi, err := os.Lstat(abs); err == nil && fi.Mode()&os.ModeSymlink != 0 {
		return filepath.EvalSymlinks(abs)
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", err
	}
	return filepath.Join(parent, filepath.Base(abs)), nil
}
