package e2e

import (
	"strings"
	"testing"
)

// TestMetrics: what the users of a disk do comes out of the daemon, through whatever frontend.
func TestMetrics(t *testing.T) {
	t.Parallel()
	m := newMachine(t, folder(t), `upload_age = "1h"`)
	path := m.attach("d", "--size", "64M")
	const n, size = 16, 64 << 10
	before := m.metric("glidefs_disk_request_size_bytes_count")
	mustRun(t, "dd", "if=/dev/zero", "of="+path, "bs=64k", "count=16", "oflag=direct", "conv=notrunc")
	if got := m.metric("glidefs_disk_request_size_bytes_count") - before; got < n {
		t.Errorf("%v requests were counted, %d were made", got, n)
	}
	if got := m.metric("glidefs_disk_request_size_bytes_sum"); got < n*size {
		t.Errorf("%v bytes were counted, %d were written", got, n*size)
	}
	if got := m.metric("glidefs_disk_up"); got != 1 {
		t.Errorf("disk up: %v", got)
	}
	inline, deferred, steps := m.metric("glidefs_ublk_inline_total"), m.metric("glidefs_ublk_deferred_total"), m.metric("glidefs_ublk_steps_total")
	moved := m.metric("glidefs_ublk_zero_copy_bytes_total") + m.metric("glidefs_ublk_copied_bytes_total")
	if block := strings.HasPrefix(path, "/dev/"); block != (inline+deferred >= n) || block != (steps >= 5) || block != (moved >= n*size) {
		t.Errorf("%s: %v requests inline, %v deferred, %v bytes moved, %v steps", path, inline, deferred, moved, steps)
	}
	m.ok("detach", "d")
}
