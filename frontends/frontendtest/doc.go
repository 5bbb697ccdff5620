// Package frontendtest is the conformance suite of the frontends: what one means by READ, WRITE, FLUSH, FUA, DISCARD and
// WRITE_ZEROES they all mean (promise P7). It also has disks for their tests and a runner for fio.
//
//	func TestConformance(t *testing.T) { frontendtest.Run(t, serve, frontendtest.NewMem) }
//
// serve puts a frontends.Disk behind a file or a block device and says where; the disks are made by the other function,
// so that every frontend can be run over every disk, the real volume included.
package frontendtest
