package frontendtest

import (
	"fmt"
	"testing"

	"glidefs-appliance/frontends"
)

// Serve puts d behind a file or block device until the test ends and returns its path.
type Serve func(t *testing.T, d frontends.Disk) (path string)

// NewDisk makes an empty disk that lives until the test ends.
type NewDisk func(t *testing.T, size int64, sector int) frontends.Disk

type suite struct {
	serve  Serve
	disk   NewDisk
	sector int
}

// Run runs the whole suite with 512-byte and 4096-byte sectors.
func Run(t *testing.T, serve Serve, disk NewDisk) {
	for _, sector := range []int{512, 4096} {
		s := suite{serve: serve, disk: disk, sector: sector}
		for _, c := range cases {
			t.Run(fmt.Sprintf("%s/%d", c.name, sector), func(t *testing.T) { c.run(t, s) })
		}
	}
}

var cases = []struct {
	name string
	run  func(*testing.T, suite)
}{
	{"geometry", testGeometry},
	{"read and write anywhere", testAnywhere},
	{"direct", testDirect},
	{"flush", testFlush},
	{"fua", testFUA},
	{"discard", testDiscard},
	{"write zeroes", testZeroes},
	{"end of disk", testEnd},
	{"read-only", testReadOnly},
	{"errors", testErrors},
	{"concurrent", testConcurrent},
}

const mib = 1 << 20
