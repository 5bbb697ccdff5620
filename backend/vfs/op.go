package vfs

// Op names an operation of FS or File, for the hooks of Fault and the log of Crash.
type Op uint8

const (
	OpCreate Op = iota
	OpOpen
	OpRemove
	OpRemoveAll
	OpRename
	OpMkdirAll
	OpList
	OpSyncDir
	OpLock
	OpUsage
	OpRead
	OpWrite
	OpSync
	OpAllocate
	OpTruncate
	OpSize
	OpWriteBack
	numOps
)

var opNames = [numOps]string{"create", "open", "remove", "removeall", "rename", "mkdir", "list", "syncdir", "lock",
	"usage", "read", "write", "sync", "allocate", "truncate", "size", "writeback"}

func (o Op) String() string { return opNames[o] }
