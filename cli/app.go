package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/config"
)

// Exit codes.
const (
	exitDone = iota
	exitFailed
	exitUsage
	exitNotAll // done, but not all is in the store
	exitOwned  // refused: another owner
)

// exitError carries an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// run is the whole program; it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	app := newApp(stdout, stderr)
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	err := app.RunContext(ctx, reorder(app, args))
	if err != nil && !errors.Is(err, errSaid) {
		fmt.Fprintf(stderr, "%s: %v\n", config.Name, err)
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var (
		own     *exitError
		refused *api.Error
	)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &own):
		return own.code
	case errors.As(err, &refused):
		return apiExit(refused.Code)
	}
	return exitFailed
}

func apiExit(c api.Code) int {
	switch c {
	case api.CodeOwned:
		return exitOwned
	case api.CodeInvalid:
		return exitUsage
	}
	return exitFailed
}

func newApp(stdout, stderr io.Writer) *cli.App {
	return &cli.App{
		Name:      config.Name,
		Usage:     "virtual disks whose home is an object store",
		Version:   version,
		Writer:    stdout,
		ErrWriter: stderr,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "store", Usage: "`URL` of the object store: file:///dir or s3://bucket/prefix?endpoint=...&region=... [$GLIDEFS_STORE]"},
			&cli.StringFlag{Name: "state-dir", Usage: "`DIR` of the write logs and the daemon's socket [$GLIDEFS_STATE_DIR]"},
			&cli.StringFlag{Name: "config", Usage: "configuration `FILE` [$GLIDEFS_CONFIG]"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print errors only"},
		},
		Commands: []*cli.Command{
			mountCommand(), umountCommand(), attachCommand(), detachCommand(), statusCommand(), syncCommand(),
			lsCommand(), rmCommand(), resizeCommand(), verifyCommand(), gcCommand(), salvageCommand(), abandonCommand(), doctorCommand(), serveCommand(),
		},
		HideHelpCommand: true,
		OnUsageError:    usageError,
		ExitErrHandler:  func(*cli.Context, error) {},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("unknown command %q; `%s --help` lists them", c.Args().First(), config.Name)
			}
			_ = cli.ShowAppHelp(c) // to stdout; whoever closed it does not want it
			return usagef("say what to do")
		},
	}
}

func usageError(_ *cli.Context, err error, _ bool) error { return &exitError{exitUsage, err} }
