package volume

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestFolderOfTheLogIsDeleted: somebody deletes the state dir below a disk that is in use. What was acknowledged is in files
// that are open still: it gets to the store, all batches of it, and the disk is nobody's then.
func TestFolderOfTheLogIsDeleted(t *testing.T) {
	r := newDiskRig(t)
	v := r.open(t, "d", OpenOptions{Create: 1 << 20})
	v.Pause(true)
	want := make([]byte, 4*r.tuning.BatchBytes)
	rand.NewChaCha8([32]byte{}).Read(want)
	for off := 0; off < len(want); off += 4096 {
		if err := v.WriteAt(t.Context(), want[off:off+4096], int64(off), false); err != nil {
			t.Fatal(err)
		}
	}
	removeLogs(t, r)
	v.Pause(false)
	mustSync(t, v)
	r.close(t, v)

	other := newDiskRig(t)
	other.st, other.state = r.st, 2
	v = other.open(t, "d", OpenOptions{})
	got := make([]byte, len(want))
	if err := v.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("wrong from byte %d, %v", firstDiff(got, want), err)
	}
	other.close(t, v)
}

// removeLogs deletes the logs of a running host, which may be making a file there meanwhile.
func removeLogs(t *testing.T, r *rig) {
	t.Helper()
	err := error(syscall.ENOTEMPTY)
	for tries := 0; errors.Is(err, syscall.ENOTEMPTY) && tries < 100; tries++ {
		err = os.RemoveAll(filepath.Join(r.dir, "logs"))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Who writes into a log whose folder is gone waits for room, as on a full file system, rather than end the log and the
// uploads with it.
func TestWriterWithoutAFolderWaits(t *testing.T) {
	r := newDiskRig(t)
	v := r.open(t, "d", OpenOptions{Create: 4 << 20})
	v.Pause(true)
	removeLogs(t, r)
	block, acked, ended := make([]byte, 4096), make(chan int64), make(chan error, 1)
	go func() {
		for off := int64(0); ; off += 4096 {
			if err := v.WriteAt(t.Context(), block, off, false); err != nil {
				ended <- err
				return
			}
			acked <- off
		}
	}()
	for waiting := false; !waiting; {
		select {
		case <-acked:
		case err := <-ended:
			t.Fatal(err)
		default:
			waiting = strings.Contains(v.Status().Reason, "no such file")
		}
	}
	v.Pause(false)
	mustSync(t, v)
	v.Kill(ErrClosed)
	if err := <-ended; err == nil {
		t.Error("acknowledged by a dead log")
	}
	r.kill(v, false)
}
