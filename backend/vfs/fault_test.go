package vfs

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"
)

func TestFault(t *testing.T) {
	fault := NewFault(OS())
	name := filepath.Join(t.TempDir(), "f")
	f := create(t, fault, name)
	defer f.Close()

	fault.Before(func(op Op, got string) error {
		if op == OpWrite && got == name {
			return ErrNoSpace
		}
		return nil
	})
	_, err := f.WriteAt([]byte("x"), 0)
	wantErr(t, err, ErrNoSpace)
	if size, _ := f.Size(); size != 0 {
		t.Error("a refused write was done")
	}
	fault.Before(nil)
	fault.After(func(op Op, _ string) error {
		if op == OpSync {
			return syscall.EIO
		}
		return nil
	})
	write(t, f, []byte("x"), 0)
	wantErr(t, f.Sync(), syscall.EIO)
	fault.After(nil)
	must(t, f.Sync())
	if fault.Count(OpSync) != 2 || fault.Count(OpWrite) != 2 || fault.Count(OpCreate) != 1 {
		t.Errorf("counts: sync %d, write %d, create %d", fault.Count(OpSync), fault.Count(OpWrite), fault.Count(OpCreate))
	}
	fault.SetUsage(100, 7)
	if total, free, err := fault.Usage("/"); total != 100 || free != 7 || err != nil {
		t.Errorf("Usage = %d, %d, %v", total, free, err)
	}
}

// A blocked operation holds up nobody else.
func TestFaultBlocks(t *testing.T) {
	fault := NewFault(NewCrash())
	a, b := create(t, fault, "a"), create(t, fault, "b")
	entered, release := make(chan struct{}), make(chan struct{})
	fault.Before(func(op Op, name string) error {
		if op == OpSync && name == "a" {
			close(entered)
			<-release
		}
		return nil
	})
	done := make(chan error)
	go func() { done <- a.Sync() }()
	<-entered
	must(t, b.Sync())
	close(release)
	must(t, <-done)
}

func TestNoSpace(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		err := noSpace(errno)
		wantErr(t, err, ErrNoSpace)
		wantErr(t, err, errno)
	}
	if errors.Is(noSpace(syscall.EIO), ErrNoSpace) {
		t.Error("EIO taken for a full disk")
	}
}
