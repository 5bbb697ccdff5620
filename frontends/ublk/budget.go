package ublk

// What one ring can hold, and how it is shared out.
const (
	tableSlots = 16384 // the kernel's bound on a ring's buffer table
	cqEntries  = 32768
	sqEntries  = 512

	maxDepth1  = 128 // of a queue while there are few devices
	minDepth   = 8
	depthShare = 64 // a queue takes at most this part of what is left, while that leaves it more than minDepth

	maxWorkers = 8
	maxQueues  = 4
	// maxParts bounds the fixed operations of one request; one in more places is copied by a goroutine.
	maxParts = 32
	// maxIOBytes of one request.
	maxIOBytes = 1 << 20
)

// depthFor is the depth of a new device's queues when the busiest worker has that many tags already. Beyond the table a
// device still works: requests without a slot are copied.
func depthFor(tags int) int {
	d := maxDepth1
	for d > minDepth && d*depthShare > tableSlots-tags {
		d /= 2
	}
	return d
}

// ownerRun tags in a row have one owner. The block layer hands out the tags of a queue in turn, so one request at a time
// would wake the workers in turn, each after a pause.
const ownerRun = 8

// owner tells which of n workers fetches a tag. Where every tag may have its own thread (PER_IO_DAEMON) the tags of one
// busy queue spread over all; else a queue has one thread.
func owner(queue, tag uint16, perTag bool, n int) int {
	if perTag {
		return (int(queue) + int(tag)/ownerRun) % n
	}
	return int(queue) % n
}
