package volume

import (
	"log/slog"
	"sync"
	"time"

	"glidefs-appliance/backend/cache"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/vfs"
	"glidefs-appliance/backend/wlog"
)

// Host is what the volumes of one daemon share. All fields are set by the appliance.
type Host struct {
	FS     vfs.FS
	Logs   string // folder of the write logs; a volume's is Logs/<name>
	BootID string
	Owner  manifest.Owner
	Store  store.Store // the gateway
	Cache  *cache.Cache
	Pages  *manifest.Pages
	Budget *wlog.Budget
	// CPU bounds the goroutines that compress, hash or merge: a slot is a token in the channel.
	CPU    chan struct{}
	Tuning Tuning
	Log    *slog.Logger
	// Merged, if set, is told that compaction has left garbage in the store. It must not block.
	Merged func()

	once        sync.Once
	sharedState *shared
	counters    counters
}

// Tuning: zero values mean the defaults.
type Tuning struct {
	UploadAge    time.Duration // oldest un-uploaded write; default 10 s
	BatchBytes   int64         // a batch is cut when this much is waiting; default 30 MiB, which scattered sectors make a pack of 31
	InlineBytes  int64         // a batch below this rides in the manifest; default 16 KiB
	ReadTimeout  time.Duration // a cold read ends in EIO after this long; default 30 s
	Readahead    int64         // bytes fetched ahead of a sequential reader; default 4 MiB
	TailPacks    int           // packs in the tail before they are merged into the first level; default 24
	LevelBytes   int64         // of the first level; each further one holds 8 times as much; default 4 GiB
	SegmentBytes int64         // of the log's first segments; default wlog's
	NoCompaction bool
}

// OpenOptions of one attach.
type OpenOptions struct {
	Create   int64 // size in bytes for a disk that isn't there; 0 = it must exist
	Sector   int   // 512 or 4096 (default) for a new disk
	Takeover bool
	ReadOnly bool
}

// Status is a volume at one moment; making one takes no lock that I/O holds.
type Status struct {
	Name         string
	Size         int64
	Sector       int
	Epoch        uint64
	ReadOnly     bool
	State        string // "ok", "log full", "offline", "fenced", "failed"
	Reason       string // why, in words; empty when ok
	DirtyBytes   int64  // acknowledged, not in the store
	DirtyWrites  uint64
	OldestDirty  time.Time // zero when clean
	BarrierSeq   uint64
	BarrierTime  time.Time // the store is exact up to this instant; zero when nothing was uploaded
	LogBytes     int64     // bytes of segments this disk holds on the local disk
	UploadedSize int64     // bytes of packs the manifest names
	Waiting      int       // requests waiting for log space
	Lost         int       // objects that compaction found gone from the store or damaged, and goes around
}

// Progress of Sync: bytes still to upload and bytes at its start.
type Progress struct{ Left, Total int64 }
