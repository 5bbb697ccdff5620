package fuse

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/frontends/frontendtest"

	"golang.org/x/sys/unix"
)

func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func TestInterruptedRequestGoesOnWhileItsCallerLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &request{cancel: closed(), quit: make(chan struct{}), pid: uint32(os.Getpid())}
		done := r.Done()
		time.Sleep(20 * callerPoll) // virtual
		if r.Err() != nil {
			t.Error("cancelled although the caller lives")
		}
		r.finish()
		<-done
	})
}

func TestRequestEnds(t *testing.T) {
	never := make(chan struct{})
	for name, r := range map[string]*request{
		"caller gone": {cancel: closed(), quit: never, pid: 1 << 30},
		"evicted":     {cancel: never, quit: closed(), pid: uint32(os.Getpid())},
		"both":        {cancel: closed(), quit: closed(), pid: uint32(os.Getpid())},
	} {
		<-r.Done()
		if !errors.Is(r.Err(), context.Canceled) {
			t.Errorf("%s: %v", name, r.Err())
		}
		r.finish()
	}
}

// TestSignals: a caught signal does not disturb a waiting write; SIGKILL ends it and its caller.
func TestSignals(t *testing.T) {
	for _, c := range []struct {
		signal unix.Signal
		want   string
	}{{unix.SIGUSR1, "exit status 0"}, {unix.SIGKILL, "signal: killed"}, {unix.SIGTERM, "signal: terminated"}} {
		t.Run(unix.SignalName(c.signal), func(t *testing.T) { testSignal(t, c.signal, c.want) })
	}
}

func testSignal(t *testing.T, sig unix.Signal, want string) {
	s := mount(t, Options{})
	spy := frontendtest.Watch(frontendtest.NewMemDisk(mib, 4096))
	path := add(t, s, "a", spy)
	inside := make(chan *request, 1)
	spy.Hook(func(ctx context.Context, op string) error {
		r := ctx.(*request)
		inside <- r
		if sig == unix.SIGUSR1 {
			<-r.cancel // interrupted: and writes on
			return r.Err()
		}
		select {
		case <-r.Done():
		case <-t.Context().Done():
		}
		return r.Err()
	})
	cmd := exec.Command("sh", "-c", `trap : USR1; printf x 1<>"$0"`, path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-inside
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if got := cmd.ProcessState.String(); got != want {
		t.Errorf("the writer ended with %q, want %q", got, want)
	}
	remove(t, s, "a")
}
