// Package api is the protocol between the daemon and its clients: HTTP with JSON bodies over the Unix socket
// daemon.sock of the state dir (0600). The paths carry a version and depend on nothing but HTTP, so that the same
// handlers can listen elsewhere one day.
//
//	GET    /v1/daemon                     Daemon
//	GET    /v1/disks                      []Disk     attached disks, and detached ones with writes that are only here
//	POST   /v1/disks/{name}/attach        Attach   -> Attached
//	POST   /v1/disks/{name}/detach        Detach   -> Detached
//	POST   /v1/disks/{name}/sync          -           stream of Line, ends with Synced
//	POST   /v1/disks/{name}/resize        Resize   -> Resized
//	POST   /v1/disks/{name}/verify        -           stream of Line, ends with Verified
//	POST   /v1/disks/{name}/salvage       Salvage  -> stream of Line, ends with Salvaged
//	POST   /v1/disks/{name}/abandon       Abandon  -> Abandoned
//	GET    /v1/volumes                    []Volume    disks in the store
//	DELETE /v1/volumes/{name}             {}
//	POST   /v1/gc                         GC       -> Collected
//	GET    /metrics                       Prometheus text
//
// A request body is one JSON object of at most MaxBody bytes without unknown fields. A failure is a status of 400 or above
// with an Error; in a stream, whose status has been sent, it is the last line. A stream is one JSON object a line; a
// client that goes away ends the operation. A daemon that is about to end answers 503 with CodeEnding: start another.
package api

import "time"

// MaxBody bounds a request body, bytes.
const MaxBody = 64 << 10

// Code tells a client what kind of failure it was.
type Code string

const (
	CodeInternal Code = "internal"
	CodeInvalid  Code = "invalid"   // the request makes no sense: a usage error
	CodeRefused  Code = "refused"   // it makes sense, but does not fit this disk or this host
	CodeNotFound Code = "not-found" // no such disk
	CodeOwned    Code = "owned"     // another state dir owns the disk
	CodeBusy     Code = "busy"      // the disk is attached, mounted or being worked on
	CodeOffline  Code = "offline"   // the store was away for too long; what was not uploaded is safe in the log
	CodeEnding   Code = "ending"    // the daemon is about to end
)

// Error is a failure. Message is whole sentences for people: the thing and the way out.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }

// Daemon says who answers.
type Daemon struct {
	Version string `json:"version"`
	PID     int    `json:"pid"`
	Store   string `json:"store"`
}

// Disk is one line of status.
type Disk struct {
	Name       string   `json:"name"`
	SizeBytes  int64    `json:"size_bytes"`
	SectorSize int      `json:"sector_size"`
	Attached   bool     `json:"attached"`
	ReadOnly   bool     `json:"read_only"`
	Frontend   string   `json:"frontend"`
	Why        string   `json:"frontend_why,omitempty"` // why that frontend; in Attached "why"
	Device     string   `json:"device"`
	MountedOn  []string `json:"mounted_on"` // seen from the client's mount namespace; the client fills it
	Epoch      uint64   `json:"epoch"`
	// State is ok, or log full, offline, fenced, failed, opening, or detached; Reason says why in words.
	State         string  `json:"state"`
	Reason        string  `json:"reason,omitempty"`
	DirtyBytes    int64   `json:"dirty_bytes"`
	DirtyWrites   uint64  `json:"dirty_writes"`
	OldestDirty   float64 `json:"oldest_dirty_age"` // seconds; 0 when clean
	Waiting       int     `json:"waiting_requests"` // for room in the log
	BarrierSeq    uint64  `json:"barrier_seq"`
	BarrierTime   *string `json:"barrier_time"` // RFC 3339 UTC: the store is exact up to here; null before the first upload
	LogBytes      int64   `json:"log_bytes"`
	UploadedBytes int64   `json:"uploaded_bytes"`
	Lost          int     `json:"lost_objects"` // gone from the store or damaged, as far as compaction has met them; verify finds all
	Host
}

// Host is what all disks of a daemon share; each Disk repeats it.
type Host struct {
	LogUsed     int64     `json:"log_used_bytes"`
	LogLimit    int64     `json:"log_limit_bytes"`
	CacheUsed   int64     `json:"cache_used_bytes"`
	CacheLimit  int64     `json:"cache_limit_bytes"`
	Store       string    `json:"store"`
	StoreHealth string    `json:"store_health"` // ok, or what is wrong and since when
	Daemon      string    `json:"daemon"`       // running, stuck, stopped; the client fills it
	DaemonPID   int       `json:"daemon_pid"`
	AsOf        time.Time `json:"as_of"`
}

// Attach asks for a disk. Attaching an attached disk again is no error when the request fits it.
type Attach struct {
	// Size in bytes: of a new disk, or checked against the disk's; 0 asks for none.
	Size int64 `json:"size,omitempty"`
	// Create makes a disk that isn't there, DefaultSize bytes large when Size is 0.
	Create   bool   `json:"create,omitempty"`
	Sector   int    `json:"sector,omitempty"`
	Takeover bool   `json:"takeover,omitempty"`
	ReadOnly bool   `json:"read_only,omitempty"`
	Frontend string `json:"frontend,omitempty"` // auto, ublk-zc, ublk-copy, fuse
	// Bare: a file system or nothing is on the disk, and no partition table. A block device is not searched for one then,
	// where the kernel can be told.
	Bare bool `json:"bare,omitempty"`
}

// DefaultSize of a new disk, bytes.
const DefaultSize = 10 << 30

// Attached is an attached disk.
type Attached struct {
	Name     string `json:"name"`
	Path     string `json:"path"` // block device or file
	Frontend string `json:"frontend"`
	Why      string `json:"why"` // why that frontend
	Size     int64  `json:"size_bytes"`
	Sector   int    `json:"sector_size"`
	ReadOnly bool   `json:"read_only"`
	Created  bool   `json:"created"`
	Already  bool   `json:"already"` // it was attached before
}

// Detach gives a disk up. It uploads nothing (Sync does); Force ends waiting requests with EIO and keeps the log.
type Detach struct {
	Force bool `json:"force,omitempty"`
}

// Detached says what is left in the log of a detached disk.
type Detached struct {
	DirtyBytes  int64  `json:"dirty_bytes"`
	DirtyWrites uint64 `json:"dirty_writes"`
	// Closed: everything is in the store and the store knows that nobody owns the disk.
	Closed bool `json:"closed"`
	// Ending: it was the last disk; the daemon ends when its clients have gone.
	Ending bool `json:"ending"`
}

// Synced is the end of a sync, which uploads everything written up to now. A disk that is not attached is opened for it
// and closed again.
type Synced struct {
	Total int64 `json:"uploaded_bytes"`
	// Left: the disk is not attached; these were the writes that an earlier detach had left here.
	Left bool `json:"left_by_detach,omitempty"`
}

// Progress of a sync or a salvage (bytes of writes) or a verify (bytes of objects).
type Progress struct {
	Left  int64  `json:"left"`
	Total int64  `json:"total"`
	Store string `json:"store_health,omitempty"`
}

// Line is one line of a stream: exactly one field is set.
type Line struct {
	Progress *Progress `json:"progress,omitempty"`
	Error    *Error    `json:"error,omitempty"`
	Synced   *Synced   `json:"synced,omitempty"`
	Verified *Verified `json:"verified,omitempty"`
	Salvaged *Salvage  `json:"salvaged,omitempty"`
}

// Range is a run of bytes of a disk.
type Range struct {
	Off    int64  `json:"offset"`
	Len    int64  `json:"length"`
	Object string `json:"object"` // the store's key
	Reason string `json:"reason"`
}

// Verified is the result of reading every object of a disk.
type Verified struct {
	Objects int     `json:"objects"`
	Bytes   int64   `json:"bytes"`
	Damaged []Range `json:"damaged"`
}

// Resize grows a disk.
type Resize struct {
	Size int64 `json:"size"`
}

// Resized tells whether users of the disk see the new size already.
type Resized struct {
	Size int64 `json:"size_bytes"`
	Live bool  `json:"live"`
}

// Salvage makes a new disk of the last instant this host had in the store plus its log.
type Salvage struct {
	As string `json:"as"`
}

// Abandon drops this host's log of a disk; Dry only counts.
type Abandon struct {
	Dry bool `json:"dry,omitempty"`
}

// Abandoned counts writes that were only in that log.
type Abandoned struct {
	Writes uint64 `json:"writes"`
}

// Volume is a disk in the store.
type Volume struct {
	Name  string     `json:"name"`
	Size  int64      `json:"size_bytes"`
	Used  int64      `json:"used_bytes"`
	Last  *time.Time `json:"last_instant"`    // the store is exact up to here
	Owner string     `json:"owner"`           // empty: closed, nobody's
	Mine  bool       `json:"mine"`            // this state dir is the owner
	Error string     `json:"error,omitempty"` // its manifest cannot be read: only the name is known
}

// GC removes objects that nothing refers to. Grace 0 is the store's own, which is safe while others write; a shorter one is busy
// while a disk is open elsewhere, or being uploaded.
type GC struct {
	DryRun bool          `json:"dry_run,omitempty"`
	Grace  time.Duration `json:"grace_ns,omitempty"`
}

// Collected is the result of a GC.
type Collected struct {
	Live    int   `json:"live_objects"`
	Deleted int   `json:"deleted_objects"`
	Bytes   int64 `json:"deleted_bytes"`
	Waiting int   `json:"waiting_objects"` // garbage younger than the grace time
}
