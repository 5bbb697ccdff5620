package ublk

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/frontendtest"
)

// labEnv names what the kernel of the lab must offer: "zerocopy", "usercopy", or "fuse" for no ublk at all. Without it a
// test proves what the host offers, and on a host without ublk that the reason is told.
const labEnv = "GLIDEFS_LAB"

func offered(s Support) string {
	switch {
	case s.ZeroCopy:
		return "zerocopy"
	case s.UserCopy:
		return "usercopy"
	}
	return "fuse"
}

// modes that this host can be tested with.
func modes(t *testing.T) map[string]bool {
	t.Helper()
	s := Probe()
	t.Logf("ublk here: %+v", s)
	if want := os.Getenv(labEnv); want != "" && want != offered(s) {
		t.Fatalf("this kernel was expected to offer %s: %+v", want, s)
	}
	m := map[string]bool{}
	if s.UserCopy {
		m["copy"] = false
	}
	if s.ZeroCopy {
		m["zero copy"] = true
	}
	if len(m) == 0 && s.Reason == "" {
		t.Error("no ublk, and no reason")
	}
	return m
}

var owners atomic.Int64

func openServer(t *testing.T, zeroCopy bool) *Server {
	t.Helper()
	return openOwned(t, zeroCopy, fmt.Sprintf("%s %d %d", t.Name(), os.Getpid(), owners.Add(1)))
}

func openOwned(t *testing.T, zeroCopy bool, owner string) *Server {
	t.Helper()
	level := slog.LevelInfo
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	s, err := Open(Options{
		Owner: owner, ZeroCopy: zeroCopy, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level})),
		OnPanic: func(name string, v any, stack []byte) { t.Errorf("panic: %v\n%s", v, stack) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// serve puts d behind a block device until the test ends.
func serve(t *testing.T, s *Server, name string, d frontends.Disk) *Device {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	dev, err := s.Add(ctx, name, d, AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := s.Remove(ctx, name, true); err != nil {
			t.Error(err)
		}
	})
	return dev
}

func TestConformance(t *testing.T) {
	for mode, zeroCopy := range modes(t) {
		t.Run(mode, func(t *testing.T) {
			s := openServer(t, zeroCopy)
			frontendtest.Run(t, func(t *testing.T, d frontends.Disk) string {
				return serve(t, s, t.Name(), d).Path()
			}, frontendtest.NewMem)
			t.Logf("%+v", s.Stats())
		})
	}
}

// TestSelfTest: a kernel that serves passes, within the limit, and is remembered.
func TestSelfTest(t *testing.T) {
	for mode, zeroCopy := range modes(t) {
		began := time.Now()
		if err := selfTest(zeroCopy); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		t.Logf("%s: %v", mode, time.Since(began))
	}
	if a, b := Probe(), Verified(); a != b {
		t.Errorf("probed %+v, verified %+v", a, b)
	}
}
