package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/statedir"
	"glidefs-appliance/appliance/statuspage"
)

// What a daemon is doing.
const (
	Running = "running"
	Stuck   = "stuck"
	Stopped = "stopped"
)

// Status asks the daemon of dir for its disks, and reads its page when it stays silent for longer than patience. It
// starts nothing and waits for nothing else.
func Status(ctx context.Context, dir statedir.Dir, patience time.Duration) (disks []api.Disk, daemon string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if c, err := Dial(ctx, dir, patience); err == nil {
		defer c.Close()
		if disks, err := c.Disks(ctx); err == nil {
			return mark(disks, Running), Running, nil
		}
	}
	return fromPage(dir)
}

// fromPage is what the daemon last wrote. A page that cannot be read says as much as none.
func fromPage(dir statedir.Dir) ([]api.Disk, string, error) {
	page, err := statuspage.Read(dir.StatusPage())
	if errors.Is(err, fs.ErrPermission) {
		return nil, "", fmt.Errorf("state dir %s is another user's: %w", dir, err)
	}
	if errors.Is(err, statuspage.ErrNone) || err == nil && len(page.Bytes) == 0 {
		return []api.Disk{}, Stopped, nil
	}
	if err != nil {
		return nil, "", err
	}
	daemon := Stopped
	if page.Writer.Alive() {
		daemon = Stuck
	}
	disks := []api.Disk{}
	if err := json.Unmarshal(page.Bytes, &disks); err != nil {
		return nil, "", fmt.Errorf("status page %s: %w", dir.StatusPage(), err)
	}
	return mark(disks, daemon), daemon, nil
}

func mark(disks []api.Disk, daemon string) []api.Disk {
	for i := range disks {
		disks[i].Daemon = daemon
	}
	return disks
}
