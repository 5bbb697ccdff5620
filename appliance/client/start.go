package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/config"
	"glidefs-appliance/appliance/statedir"
)

const (
	// patience with a daemon that accepts connections and says nothing.
	patience = 10 * time.Second
	// tries to start a daemon, or to find the one that somebody else starts at the same moment.
	tries = 5
)

// Started is what a daemon reports through ReadyFD: nil Error when it is ready to serve.
type Started struct {
	Error *api.Error `json:"error,omitempty"`
}

// ReadyFD is the descriptor on which a daemon that was started in the background reports, once.
const ReadyFD = 3

// Connect returns a connection to the daemon of the state dir, after starting one when there is none.
func Connect(ctx context.Context, s config.Settings) (*Client, error) {
	dir := statedir.Dir(s.StateDir)
	for n := 0; ; n++ {
		c, err := Dial(ctx, dir, patience)
		switch {
		case err == nil:
			return c, c.fits(s)
		case errors.Is(err, ErrStuck):
			return nil, fmt.Errorf("the daemon of %s does not answer; `%s` says more; if it stays so, end it (kill -9 is safe) and try again", dir, s.Command("status"))
		}
		err = start(ctx, s)
		var refused *api.Error
		// Another daemon came up meanwhile, or goes down slowly.
		again := errors.As(err, &refused) && refused.Code == api.CodeBusy && n < tries
		if err != nil && !again {
			return nil, err
		}
		if again {
			pause(ctx, 100*time.Millisecond)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// fits refuses a running daemon that serves another store than the one asked for.
func (c *Client) fits(s config.Settings) error {
	if s.Store == "" || statedir.SameStore(s.Store, c.Daemon.Store) {
		return nil
	}
	c.Close()
	return fmt.Errorf("the daemon of %s serves %s, not %s; use another --state-dir for it, or leave --store out", s.StateDir, c.Daemon.Store, s.Store)
}

// start runs `serve` in the background and returns when it is ready, or why it is not.
func start(ctx context.Context, s config.Settings) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", serveArgs(s)...)
	cmd.Args[0] = os.Args[0]
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{w} // ReadyFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	go cmd.Wait() // it outlives us, or has reported why it doesn't
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	report, err := io.ReadAll(r)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var st Started
	if err != nil || json.Unmarshal(report, &st) != nil {
		return fmt.Errorf("the daemon died while it started; the end of its log %s:\n%s", statedir.Dir(s.StateDir).Log(), tail(statedir.Dir(s.StateDir).Log()))
	}
	if st.Error != nil {
		return st.Error
	}
	return nil
}

func serveArgs(s config.Settings) []string {
	args := []string{"--state-dir", s.StateDir}
	if s.ConfigPath != "" {
		args = append(args, "--config", s.ConfigPath)
	}
	if s.Store != "" {
		args = append(args, "--store", s.Store)
	}
	return append(args, "serve", "--background")
}

// tail returns the last lines of a file.
func tail(path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		return []byte(err.Error())
	}
	b = bytes.TrimSpace(b)
	if len(b) > 2000 {
		b = b[len(b)-2000:]
		b = b[bytes.IndexByte(b, '\n')+1:]
	}
	return b
}

// WaitGone returns when the daemon has let go of the state dir, or ctx ends.
func WaitGone(ctx context.Context, dir statedir.Dir) {
	for ctx.Err() == nil && statedir.Locked(dir) {
		pause(ctx, 10*time.Millisecond)
	}
}
