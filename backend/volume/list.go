package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
)

// Info is a disk as the store knows it.
type Info struct {
	Name   string
	Size   int64
	Used   int64 // bytes of the objects its manifest names
	Last   time.Time
	Owner  string
	State  [16]byte // of the owner's state dir
	Since  time.Time
	Closed bool
	Err    error // the manifest could not be read; only Name is valid
}

// List tells the disks in the store, by name. One request a disk and one a thousand keys.
func List(ctx context.Context, st store.Store) ([]Info, error) {
	var out []Info
	for o, err := range st.List(ctx, "volumes/", "") {
		if err != nil {
			return nil, fmt.Errorf("list disks: %w", err)
		}
		name, file, ok := strings.Cut(strings.TrimPrefix(o.Key, "volumes/"), "/")
		if !ok || file != "manifest" {
			continue
		}
		if i := info(ctx, st, name); !isGone(i.Err) || errors.Is(i.Err, manifest.ErrDeleting) {
			out = append(out, i)
		}
	}
	return out, nil
}

// info reads one; a tombstone is store.ErrNotFound.
func info(ctx context.Context, st store.Store, name string) Info {
	cell, err := manifest.Read(ctx, st, name)
	if err != nil {
		return Info{Name: name, Err: err}
	}
	m := cell.Current()
	return Info{
		Name: name, Size: m.Size, Used: stored(m), Last: m.BarrierTime,
		Owner: m.Owner.Host, State: m.Owner.State, Since: m.Since, Closed: m.Closed,
	}
}
