package fuse

import (
	"context"
	"testing"
	"time"

	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/frontendtest"
)

// mount makes a server that is unmounted when the test ends.
func mount(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := Mount(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func add(t testing.TB, s *Server, name string, d frontends.Disk) string {
	t.Helper()
	path, err := s.Add(name, d, false)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// remove takes the file away; the closes of the test arrive late.
func remove(t testing.TB, s *Server, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Remove(ctx, name); err != nil {
		t.Error(err)
	}
}

func TestConformance(t *testing.T) {
	s := mount(t, Options{})
	serve := func(t *testing.T, d frontends.Disk) string {
		path := add(t, s, "disk", d)
		t.Cleanup(func() { remove(t, s, "disk") })
		return path
	}
	t.Run("memory", func(t *testing.T) { frontendtest.Run(t, serve, frontendtest.NewMem) })
	t.Run("file", func(t *testing.T) { frontendtest.Run(t, serve, frontendtest.NewFile) })
}
