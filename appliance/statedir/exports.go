package statedir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"glidefs-appliance/backend/vfs"
)

// Export is a disk this state dir has something to do with: attached, or detached with writes that are only here.
type Export struct {
	Name     string `json:"name"`
	Frontend string `json:"frontend,omitempty"`
	Asked    bool   `json:"asked,omitempty"` // somebody wanted that frontend
	// Device is the block device, which the kernel keeps, with its users, for the next daemon.
	Device   string `json:"device,omitempty"`
	ReadOnly bool   `json:"read_only,omitempty"`
	Bare     bool   `json:"bare,omitempty"` // has no partition table
	// Attached disks are opened again by the next daemon: their last one died without detaching them, so the store says
	// that we own them still.
	Attached bool   `json:"attached"`
	Boot     string `json:"boot,omitempty"` // id of the boot in which it was attached
	Left
	Since time.Time `json:"since"`
}

// Left describes a disk when it was closed, for as long as its log here has something that the store has not. What is
// not known is zero.
type Left struct {
	Size    int64     `json:"size_bytes,omitempty"`
	Owed    int64     `json:"owed_bytes,omitempty"`  // not in the store
	Writes  uint64    `json:"owed_writes,omitempty"` // of which that is
	Oldest  time.Time `json:"oldest,omitzero"`       // of these writes
	Barrier time.Time `json:"barrier,omitzero"`      // the store is exact up to then
}

// Exports reads the list; none is no error.
func (d Dir) Exports() ([]Export, error) {
	b, err := vfs.ReadFile(vfs.OS(), d.path("exports.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Export
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; remove it and attach the disks again", d.path("exports.json"), err)
	}
	return list, nil
}

// SetExports replaces the list, durably. Not concurrently.
func (s *State) SetExports(list []Export) error {
	b, err := json.MarshalIndent(list, "", "\t")
	if err != nil {
		return err
	}
	return s.write("exports.json", string(b)+"\n")
}
