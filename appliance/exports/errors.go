package exports

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/config"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/volume"
)

// Limits of a disk's size, bytes.
const (
	minSize = 1 << 20
	maxSize = 1 << 60
)

func failure(c api.Code, format string, args ...any) error {
	return &api.Error{Code: c, Message: fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) error { return failure(api.CodeInvalid, format, args...) }
func refused(format string, args ...any) error { return failure(api.CodeRefused, format, args...) }
func busy(format string, args ...any) error    { return failure(api.CodeBusy, format, args...) }

func checkSize(n int64) error {
	if n < minSize || n > maxSize || n%4096 != 0 {
		return invalid("invalid disk size %d: use a multiple of 4096 bytes between %s and %s", n, config.Size(minSize), config.Size(maxSize))
	}
	return nil
}

func (m *Manager) sizeError(name string, have, ask int64) error {
	if ask < have {
		return refused("disk %q has %s, more than %s, and cannot shrink; leave --size out", name, config.Size(have), config.Size(ask))
	}
	return refused("disk %q has %s, not %s; `%s` makes it larger", name, config.Size(have), config.Size(ask), m.command(fmt.Sprintf("resize %s %s", name, config.Size(ask))))
}

func sectorError(name string, have, ask int) error {
	return refused("disk %q has sectors of %d bytes, not %d, and keeps them; leave --sector out", name, have, ask)
}

// command is how to type one of our commands here.
func (m *Manager) command(words string) string { return m.o.Program + " " + words }

// explain turns an error of the engine into one that names the ways out.
func (m *Manager) explain(name string, err error) error {
	var (
		owned   *volume.OwnedError
		missing *volume.LogMissingError
		foreign *volume.LogForeignError
		size    *volume.SizeError
		damaged *manifest.DamagedError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &owned) && m.hasLog(name):
		return m.takenOver(name, owned)
	case errors.As(err, &owned):
		return failure(api.CodeOwned, "disk %q was last written by %s (attached %s) and not closed; the store is exact up to %s. "+
			"If that host is gone, --takeover opens the disk there and fences the other; --read-only opens it as it was then and asks nobody",
			name, owned.Host, instant(owned.Since), instant(owned.Last))
	case errors.As(err, &missing):
		return failure(api.CodeInternal, "disk %q: this host has not uploaded everything, and its write log is missing from %s. "+
			"Bring the folder back; or, if it is lost, `%s` lets the disk go on from what the store holds, exact up to %s", name, missing.Dir, m.command("abandon "+name+" --yes"), instant(missing.Last))
	case errors.As(err, &foreign):
		return m.stranded(name, foreign)
	case errors.Is(err, volume.ErrFenced):
		return failure(api.CodeOwned, "disk %q was taken over by another host, and takes no more writes here. `%s` saves what this host "+
			"has of it as a disk of another name, `%s` drops that", name, m.command("salvage "+name+" NEW"), m.command("abandon "+name+" --yes"))
	case errors.As(err, &damaged):
		return m.damaged(name, damaged.Key, err)
	case errors.As(err, &size):
		return m.sizeError(name, size.Have, size.Ask)
	case errors.Is(err, manifest.ErrDeleting):
		return failure(api.CodeRefused, "disk %q is being removed; if that was interrupted, `%s` finishes it", name, m.command("rm "+name+" --yes"))
	case errors.Is(err, volume.ErrNotFound), errors.Is(err, store.ErrNotFound):
		return failure(api.CodeNotFound, "disk %q is not in the store %s; `%s` lists what is", name, m.o.Host.Store.URL(), m.command("ls"))
	case errors.Is(err, volume.ErrExists):
		return failure(api.CodeRefused, "disk %q exists already; choose another name", name)
	}
	return err // the engine's errors name the operation and the disk
}

// damaged is the error for a disk whose manifest is damaged. gc deletes nothing while it finds such a one, so that what an
// older version of it names is not in danger meanwhile.
func (m *Manager) damaged(name, key string, err error) error {
	salvage := ""
	if m.hasLog(name) {
		salvage = fmt.Sprintf("`%s` makes a disk of another name of what this host knows of it and of its write log here; or ", m.command("salvage "+name+" NEW"))
	}
	return failure(api.CodeInternal, "disk %q: the object %s in the store %s is damaged (%v). Nothing is deleted from the store meanwhile: "+
		"%sput an older version of that object back, which the store's versioning or a backup may have: the disk is what it was then, and `%s` tells whether all of it is there",
		name, key, m.o.Host.Store.URL(), err, salvage, m.command("verify "+name))
}

// takenOver is the error for a disk that another host took while this one still had a log of it.
func (m *Manager) takenOver(name string, owned *volume.OwnedError) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	const countOnly = true
	writes, err := volume.Abandon(ctx, m.o.Host, name, countOnly)
	if err != nil {
		return fmt.Errorf("disk %q was taken over by %s since %s, and this host's log of it cannot be counted: %w", name, owned.Host, instant(owned.Since), err)
	}
	return m.stranded(name, &volume.LogForeignError{
		Dir: filepath.Join(m.o.Host.Logs, name), Host: owned.Host, Since: owned.Since, Writes: writes, Reason: "it was taken over",
	})
}

// stranded says how to settle a log that nobody will upload.
func (m *Manager) stranded(name string, e *volume.LogForeignError) error {
	return failure(api.CodeOwned, "disk %q: the write log in %s does not continue what the store holds (%s): %s has the disk since %s. "+
		"%d writes are only here. `%s` saves them as a disk of another name, `%s` drops them",
		name, e.Dir, e.Reason, or(e.Host, "another host"), instant(e.Since), e.Writes, m.command("salvage "+name+" NEW"), m.command("abandon "+name+" --yes"))
}

// instant writes a time for people, to the second.
func instant(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}
