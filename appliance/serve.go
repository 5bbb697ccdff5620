package appliance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"glidefs-appliance/appliance/client"
	"glidefs-appliance/appliance/config"
	"glidefs-appliance/appliance/logfile"
	"glidefs-appliance/appliance/notify"
	"glidefs-appliance/appliance/statedir"
	"glidefs-appliance/appliance/supervisor"
	"glidefs-appliance/frontends/fuse"
	"glidefs-appliance/frontends/ublk"
)

const (
	maxRestarts   = 5
	restartWindow = time.Minute
)

// Serve runs the supervisor, and under it the daemon, until that ends in order. It returns the process's exit code.
func Serve(o Options) int {
	dir := statedir.Dir(o.Settings.StateDir)
	var report io.WriteCloser
	if o.Background {
		report = os.NewFile(client.ReadyFD, "report")
		toLog(dir)
	}
	return supervisor.Run(supervisor.Options{
		Args:   o.Args,
		Report: report,
		Ready:  notify.Ready,
		GiveUp: func() { giveUp(dir) },
		Logf: func(format string, args ...any) {
			if o.Background {
				reopen(dir) // the daemon rotates it
			}
			fmt.Fprintf(os.Stderr, format+"\n", args...)
		},
		MaxRestarts: maxRestarts,
		Window:      restartWindow,
	})
}

// toLog sends standard output and error to the log. When it cannot be opened the daemon finds out why, and reports it.
func toLog(dir statedir.Dir) {
	if os.MkdirAll(string(dir), 0o700) == nil {
		reopen(dir)
	}
}

// reopen sends standard output and error to what is the log now, if it can be opened.
func reopen(dir statedir.Dir) {
	if f, err := logfile.Open(dir.Log(), true); err == nil {
		f.Close()
	}
}

// giveUp ends what the users of a dead daemon's disks wait for: they get errors.
func giveUp(dir statedir.Dir) {
	_, err := fuse.CleanDead(dir.Fuse())
	if err = errors.Join(err, giveUpBlocks(string(dir))); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// giveUpBlocks holds the lock of the state dir: a daemon that a command has started meanwhile goes on with the devices.
func giveUpBlocks(dir string) error {
	s, err := statedir.Open(dir)
	if errors.Is(err, statedir.ErrInUse) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.Close()
	return ublk.GiveUp(s.Owner(), slog.New(slog.NewTextHandler(os.Stderr, nil)))
}

// Daemon runs the daemon itself, as the supervisor's child, and returns its exit code.
func Daemon(o Options) int {
	report := os.NewFile(client.ReadyFD, "report")
	d, err := start(o)
	tell(report, err)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", config.Name, err)
		return 1
	}
	d.run()
	return 0
}

// tell reports to the supervisor, and through it to the command that started us.
func tell(report io.WriteCloser, err error) {
	defer report.Close()
	if err == nil {
		_, _ = io.WriteString(report, supervisor.ReadyLine) // without a supervisor nobody reads it
		return
	}
	_ = json.NewEncoder(report).Encode(client.Started{Error: asAPI(err)})
}

// logger writes to the state dir's log, and to standard error when a person or systemd started us.
func logger(dir statedir.Dir, background, debug bool) (*slog.Logger, *logfile.File, error) {
	f, err := logfile.Open(dir.Log(), background)
	if err != nil {
		return nil, nil, err
	}
	var w io.Writer = f
	if !background {
		w = io.MultiWriter(f, os.Stderr)
	}
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})), f, nil
}
