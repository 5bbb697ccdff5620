package appliance

import (
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"glidefs-appliance/appliance/config"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/volume"
)

// Options of Serve.
type Options struct {
	Settings config.Settings
	Version  string
	// Background: a command started us. Log to the file only, and end when idle.
	Background bool
	// UntilIdle ends the daemon when its last disk is detached and its last client has gone.
	UntilIdle bool
	// Args start the daemon itself: this program's arguments for Daemon.
	Args []string
}

const (
	// The log's share of its file system, and its bounds, bytes.
	logPart          = 10 // percent
	logMin, logMax   = 1 << 30, 32 << 30
	cachePart        = 20 // percent
	memoryPart       = 25 // percent of the machine's
	memoryMin        = 256 << 20
	memoryMax        = 2 << 30
	defaultSyncLimit = 60 * time.Second
)

// logBudget is the room for the write logs of all disks, bytes, on a file system of the given size.
func logBudget(f config.File, total int64) int64 {
	if f.LogSize > 0 {
		return int64(f.LogSize)
	}
	return min(max(total/100*logPart, logMin), logMax)
}

// cacheBudget is the room for the clean cache, bytes.
func cacheBudget(f config.File, total int64) int64 {
	if f.CacheSize > 0 {
		return int64(f.CacheSize)
	}
	return total / 100 * cachePart
}

// limitMemory makes the collector work harder before the heap gets large. GOMEMLIMIT, when set, stands.
func limitMemory(getenv func(string) string) {
	var info unix.Sysinfo_t
	if getenv("GOMEMLIMIT") != "" || unix.Sysinfo(&info) != nil {
		return
	}
	ram := int64(info.Totalram) * int64(info.Unit)
	debug.SetMemoryLimit(min(max(ram/100*memoryPart, memoryMin), memoryMax))
}

func tuning(f config.File) volume.Tuning {
	return volume.Tuning{
		UploadAge:   time.Duration(f.UploadAge),
		ReadTimeout: time.Duration(f.ReadTimeout),
	}
}

func gateway(f config.File) store.GatewayOptions {
	return store.GatewayOptions{
		Concurrency:   f.StoreRequests,
		UploadLimit:   int64(f.UploadLimit),
		DownloadLimit: int64(f.DownloadLimit),
	}
}
