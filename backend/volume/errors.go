package volume

import (
	"errors"
	"fmt"
	"time"

	"glidefs-appliance/backend/wlog"
)

var (
	// ErrNotFound: the store holds no such disk.
	ErrNotFound = errors.New("no such disk")
	// ErrExists: a disk of that name is there already.
	ErrExists = errors.New("disk exists already")
	// ErrFenced: another host took the disk over; every operation is EIO from now on, the log is kept (P5).
	ErrFenced = errors.New("disk was taken over by another host")
	// ErrFailed: a sync or a log write failed, or the disk's own code panicked; nothing retries it into success.
	ErrFailed = errors.New("disk failed")
	// ErrClosed: detached.
	ErrClosed = errors.New("disk is detached")
	// ErrDamaged: bytes in the store do not match their checksum.
	ErrDamaged = errors.New("damaged object")
)

// OwnedError: another state dir wrote the disk last and did not close it.
type OwnedError struct {
	Name  string
	Host  string
	Since time.Time // it was attached
	Last  time.Time // the store's last exact instant; zero if nothing was uploaded
}

func (e *OwnedError) Error() string {
	return fmt.Sprintf("disk %q is owned by %s since %s", e.Name, e.Host, e.Since.UTC().Format(time.RFC3339))
}

// LogMissingError: the manifest says this state dir wrote the disk and did not close it, but its log is not here.
type LogMissingError struct {
	Name, Dir string
	Last      time.Time
}

func (e *LogMissingError) Error() string {
	return fmt.Sprintf("disk %q: the write log that this host owes is missing from %s", e.Name, e.Dir)
}

// LogForeignError: the local log does not continue the store's manifest (taken over, restored from a backup, re-created).
// Nothing of it is read; it stays where it is until `abandon` or `salvage` settles it.
type LogForeignError struct {
	Name, Dir string
	Host      string    // who wrote the store's manifest
	Since     time.Time // and since when
	Writes    uint64    // writes that are only in this log
	Barrier   wlog.Barrier
	Reason    string
}

func (e *LogForeignError) Error() string {
	return fmt.Sprintf("disk %q: the write log in %s does not continue what the store holds (%s): %d writes are only here", e.Name, e.Dir, e.Reason, e.Writes)
}

// SizeError: a size was asked for that is not the disk's.
type SizeError struct {
	Name      string
	Have, Ask int64
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("disk %q has %d bytes, not %d", e.Name, e.Have, e.Ask)
}
