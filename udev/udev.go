// Package udev holds the rule that sets up the block devices of this project, and puts it where udev finds it.
//
// A package installs it in /usr/lib/udev/rules.d. A daemon that finds it missing or different there puts its own in
// /run/udev/rules.d, which goes first and is gone after a reboot. Without udev, or without the right to write there,
// devices work all the same.
package udev

import (
	_ "embed" // for the rule
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// Name of the file in the folders of rules.
const Name = "99-glidefs-ublk.rules"

// Rule is its content.
//
//go:embed 99-glidefs-ublk.rules
var Rule string

// Folders of rules, in udev's order: the first that has a file of a name hides the others.
type Folders struct {
	Admin   string // /etc/udev/rules.d: whatever is there is meant
	Runtime string // /run/udev/rules.d
	Package string // /usr/lib/udev/rules.d
	Reload  func() error
}

// Host is this host's.
func Host() Folders {
	return Folders{"/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d", reload}
}

func reload() error {
	if out, err := exec.Command("udevadm", "control", "--reload").CombinedOutput(); err != nil {
		return fmt.Errorf("udevadm control --reload: %w: %s", err, out)
	}
	return nil
}

// Ensure makes sure that udev knows the rule; it tells whether it had to write it.
func (f Folders) Ensure() (wrote bool, err error) {
	if _, err := os.Stat(filepath.Dir(f.Runtime)); errors.Is(err, fs.ErrNotExist) {
		return false, nil // no udev here
	}
	for _, dir := range []string{f.Admin, f.Runtime, f.Package} {
		have, err := os.ReadFile(filepath.Join(dir, Name))
		if err == nil && (dir == f.Admin || string(have) == Rule) {
			return false, nil
		}
		if err == nil {
			break // an older one: hidden by ours
		}
	}
	if err := os.MkdirAll(f.Runtime, 0o755); err != nil {
		return false, fmt.Errorf("udev rule: %w", err)
	}
	path := filepath.Join(f.Runtime, Name)
	if err := os.WriteFile(path+".new", []byte(Rule), 0o644); err != nil {
		return false, fmt.Errorf("udev rule: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return false, fmt.Errorf("udev rule: %w", err)
	}
	return true, f.Reload()
}
