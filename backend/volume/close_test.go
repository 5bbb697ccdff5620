package volume

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"glidefs-appliance/backend/vfs"
)

// TestWriteDuringClose: a write that was under way when the disk was detached is either refused, or it counts: the detach
// says then that the store does not have all, and the next attach finds it.
func TestWriteDuringClose(t *testing.T) {
	t.Run("commits while the log is closed", func(t *testing.T) { writeDuringClose(t, true) })
	t.Run("commits to a closed log", func(t *testing.T) { writeDuringClose(t, false) })
}

func writeDuringClose(t *testing.T, early bool) {
	fault := vfs.NewFault(vfs.NewCrash())
	r := newRig(fault, "/state")
	v := r.open(t, "a", OpenOptions{Create: misuseSize})
	before, after := bytes.Repeat([]byte{'1'}, 4096), bytes.Repeat([]byte{'2'}, 4096)
	if err := v.WriteAt(t.Context(), before, 0, false); err != nil {
		t.Fatal(err)
	}
	mustSync(t, v)

	moving, goOn, written := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	fault.Before(func(op vfs.Op, name string) error {
		if op == vfs.OpWrite && name == "/state/logs/a/00000000.seg" {
			fault.Before(nil)
			close(moving)
			<-goOn
		}
		return nil
	})
	go func() { written <- v.WriteAt(t.Context(), after, 0, false) }()
	<-moving
	var werr error
	finish := sync.OnceFunc(func() {
		close(goOn)
		werr = <-written
	})
	fault.Before(func(op vfs.Op, name string) error {
		if early && name == "/state/logs/a/head.new" {
			finish()
		}
		return nil
	})
	cerr := v.Close(t.Context())
	finish()
	_ = r.c.Close()
	r.h = nil

	v = r.open(t, "a", OpenOptions{})
	defer func() { r.kill(v, false) }()
	got := make([]byte, 4096)
	if err := v.ReadAt(t.Context(), got, 0); err != nil {
		t.Fatal(err)
	}
	var pending *PendingError
	switch {
	case werr != nil && bytes.Equal(got, before):
	case werr == nil && bytes.Equal(got, after) && errors.As(cerr, &pending):
	default:
		t.Errorf("write: %v, close: %v; then the disk holds %q", werr, cerr, got[:1])
	}
}
