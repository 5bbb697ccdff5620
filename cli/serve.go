package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"glidefs-appliance/appliance"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "run the daemon in the foreground",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "until-idle", Usage: "end when the last disk is detached"},
			&cli.BoolFlag{Name: "background", Hidden: true, Usage: "a command started it: report readiness on descriptor 3, log to the file only"},
			&cli.BoolFlag{Name: "child", Hidden: true, Usage: "the daemon itself, below its supervisor"},
		},
		OnUsageError: usageError,
		Action:       with(serve),
	}
}

func serve(_ context.Context, e *env, c *cli.Context) error {
	if err := operands(c); err != nil {
		return err
	}
	o := appliance.Options{
		Settings:   e.settings,
		Version:    version,
		Background: c.Bool("background"),
		UntilIdle:  c.Bool("until-idle"),
		Args:       childArgs(e, c),
	}
	do := appliance.Serve
	if c.Bool("child") {
		do = appliance.Daemon
	}
	if code := do(o); code != 0 {
		return &exitError{code, errSaid}
	}
	return nil
}

// childArgs are the arguments of the daemon below the supervisor that runs with these.
func childArgs(e *env, c *cli.Context) []string {
	args := []string{"--state-dir", e.settings.StateDir}
	if e.settings.ConfigPath != "" {
		args = append(args, "--config", e.settings.ConfigPath)
	}
	if e.settings.Store != "" {
		args = append(args, "--store", e.settings.Store)
	}
	args = append(args, "serve", "--child")
	for _, f := range []string{"background", "until-idle"} {
		if c.Bool(f) {
			args = append(args, "--"+f)
		}
	}
	return args
}
