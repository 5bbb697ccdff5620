package volume

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"glidefs-appliance/backend/vfs"
)

// TestLocalDiskFails: after one failed write or sync of the log nothing is acknowledged any more, and nothing retries it
// into success; what was synced before is in the store or there at the next start; what is only half here is not uploaded.
func TestLocalDiskFails(t *testing.T) {
	for name, op := range map[string]vfs.Op{"sync": vfs.OpSync, "write": vfs.OpWrite} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewFault(vfs.NewCrash())
			r := newRig(fs, "/state")
			v := r.open(t, "a", OpenOptions{Create: misuseSize})
			safe := []byte(strings.Repeat("safe", 1024))
			if err := v.WriteAt(t.Context(), safe, 0, true); err != nil {
				t.Fatal(err)
			}
			var failed atomic.Bool // the first time only: the kernel reports an error once
			fs.Before(func(o vfs.Op, name string) error {
				if o == op && strings.Contains(name, "/logs/") && strings.HasSuffix(name, ".seg") && failed.CompareAndSwap(false, true) {
					return syscall.EIO
				}
				return nil
			})
			err := v.WriteAt(t.Context(), make([]byte, 4096), 8192, true)
			if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) || !failed.Load() {
				t.Fatalf("write: %v", err)
			}
			everythingFails(t, v, ErrFailed)
			if s := v.Status(); s.State != "failed" || !strings.Contains(s.Reason, "input/output error") || s.BarrierSeq != 0 {
				t.Errorf("%+v", s)
			}
			r.kill(v, false)
			v = r.open(t, "a", OpenOptions{})
			got := make([]byte, 4096)
			if err := v.ReadAt(t.Context(), got, 0); err != nil || string(got) != string(safe) {
				t.Errorf("after a start: %q.., %v", got[:8], err)
			}
			mustSync(t, v)
			r.close(t, v)
		})
	}
}
