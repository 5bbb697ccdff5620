package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
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

// listReads is how many manifests List reads at a time.
const listReads = 16

// List tells the disks in the store, by name. One request a disk and one a thousand keys.
func List(ctx context.Context, st store.Store) ([]Info, error) {
	var list []Info
	for o, err := range st.List(ctx, "volumes/", "") {
		if err != nil {
			return nil, fmt.Errorf("list disks: %w", err)
		}
		if name, file, ok := strings.Cut(strings.TrimPrefix(o.Key, "volumes/"), "/"); ok && file == "manifest" {
			list = append(list, Info{Name: name})
		}
	}
	var wg sync.WaitGroup
	free := make(chan struct{}, listReads)
	for i := range list {
		free <- struct{}{}
		wg.Go(func() {
			list[i] = info(ctx, st, list[i].Name)
			<-free
		})
	}
	wg.Wait()
	list = slices.DeleteFunc(list, func(i Info) bool {
		return isGone(i.Err) && !errors.Is(i.Err, manifest.ErrDeleting)
	})
	slices.SortFunc(list, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
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
