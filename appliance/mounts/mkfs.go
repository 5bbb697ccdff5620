package mounts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// kind is a file system we make and mount.
type kind struct {
	pkg      string   // the Debian package of its mkfs
	args     []string // of mkfs
	options  string   // of mount, read and write
	readOnly string   // of mount on a read-only device: don't try to replay the journal
}

var kinds = map[string]kind{
	// The inode tables and the journal are zeroed lazily: by the kernel, in the background, with WRITE_ZEROES, which
	// costs a record and no data. Without it mkfs writes 1.6 % of the disk.
	"ext4": {"e2fsprogs", []string{"-q", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"}, "discard", "noload"},
	// nouuid: the same disk may be mounted for writing on this host.
	"xfs":   {"xfsprogs", []string{"-q", "-K"}, "discard", "norecovery,nouuid"},
	"btrfs": {"btrfs-progs", []string{"-q", "-K"}, "discard=sync", "rescue=nologreplay"},
}

// Kinds lists the file systems MakeFS can make, sorted.
func Kinds() []string {
	var names []string
	for k := range kinds {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}

// MakeFS makes a file system on a device that the caller has found Blank. Its error says what to install when the
// program is missing.
func MakeFS(ctx context.Context, dev, fsType string) error {
	k, ok := kinds[fsType]
	if !ok {
		return fmt.Errorf("make a file system: %q is not one of %q", fsType, Kinds())
	}
	mkfs, err := program("mkfs."+fsType, k.pkg)
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, mkfs, append(slices.Clone(k.args), dev)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mkfs.%s %s: %w: %s", fsType, dev, err, bytes.TrimSpace(out))
	}
	return nil
}

// program finds a system program, also where a plain user's PATH doesn't look.
func program(name, pkg string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path := filepath.Join(dir, name); executable(path) {
			return path, nil
		}
	}
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%s is not installed (apt install %s): %w", name, pkg, err)
	}
	return "", err
}

func executable(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}
