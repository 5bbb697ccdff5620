package statedir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"glidefs-appliance/backend/vfs"
)

// place is where a state dir lives. A copy has the same id, and two with one id would each take the other's disks for
// their own; so a copy is refused. Moving the folder within its file system keeps the inode and is no copy; a backup
// restored to the same path of the same machine is none either (its logs are compared with the store one by one).
type place struct {
	Machine string `json:"machine_id,omitempty"`
	Host    string `json:"hostname"`
	Path    string `json:"path"`
	Inode   uint64 `json:"inode"`
}

func (p place) copyOf(was place) bool {
	if p.Machine != "" && was.Machine != "" && p.Machine != was.Machine {
		return true
	}
	return p.Path != was.Path && p.Inode != was.Inode
}

func here(dir string) (place, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return place{}, err
	}
	host, _ := os.Hostname()
	id, _ := os.ReadFile("/etc/machine-id")
	return place{
		Machine: strings.TrimSpace(string(id)),
		Host:    host,
		Path:    dir,
		Inode:   info.Sys().(*syscall.Stat_t).Ino,
	}, nil
}

func (s *State) checkPlace() error {
	now, err := here(string(s.Dir))
	if err != nil {
		return err
	}
	was, err := s.readPlace()
	if err != nil {
		return err
	}
	if was != nil && now.copyOf(*was) {
		return fmt.Errorf("%w: it belongs to %s on %s; move it back, or use another --state-dir; "+
			"only if the original is gone for good, remove %s to use it here", ErrCopied, was.Path, was.Host, s.path("host"))
	}
	if was != nil && *was == now {
		return nil
	}
	b, err := json.Marshal(now)
	if err != nil {
		return err
	}
	return s.write("host", string(b)+"\n")
}

// readPlace returns nil when nothing was recorded.
func (s *State) readPlace() (*place, error) {
	b, err := vfs.ReadFile(vfs.OS(), s.path("host"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var p place
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; remove it if this state dir was never copied", s.path("host"), err)
	}
	return &p, nil
}
