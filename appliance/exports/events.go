package exports

import "glidefs-appliance/appliance/api"

// Events tell a subscriber what happens to disks; a nil field is skipped. They are called without
// Manager's lock held, before the caller learns of it, and must not wait for a disk or the store.
type Events struct {
	Attached func(api.Attached)
	Detached func(name string, d api.Detached)
	// Changed: the state (ok, log full, offline, fenced, failed) is another one than before.
	Changed func(d api.Disk, was string)
}

func (e Events) attached(a api.Attached) {
	if e.Attached != nil {
		e.Attached(a)
	}
}

func (e Events) detached(name string, d api.Detached) {
	if e.Detached != nil {
		e.Detached(name, d)
	}
}

func (e Events) changed(d api.Disk, was string) {
	if e.Changed != nil {
		e.Changed(d, was)
	}
}
