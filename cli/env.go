package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"glidefs-appliance/appliance/client"
	"glidefs-appliance/appliance/config"
	"glidefs-appliance/appliance/statedir"
)

// env is what every command works with.
type env struct {
	settings config.Settings
	out, err io.Writer
	json     bool
	quiet    bool
}

// with makes a command's action of a function with an env.
func with(do func(ctx context.Context, e *env, c *cli.Context) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		given := config.Given{Store: c.String("store"), StateDir: c.String("state-dir"), Config: c.String("config")}
		s, err := config.Resolve(given, os.Geteuid(), os.Getenv)
		if err != nil {
			return err
		}
		e := &env{settings: s, out: c.App.Writer, err: c.App.ErrWriter, json: c.Bool("json"), quiet: c.Bool("quiet")}
		return do(c.Context, e, c)
	}
}

// operands checks the number of operands; names are theirs, for the message.
func operands(c *cli.Context, names ...string) error {
	if c.NArg() == len(names) {
		return nil
	}
	return usagef("%s needs %s; see `%s %s --help`", c.Command.Name, describeOperands(names), config.Name, c.Command.Name)
}

func describeOperands(names []string) string {
	switch len(names) {
	case 0:
		return "no operand"
	case 1:
		return names[0]
	}
	return names[0] + " and " + names[1]
}

// sizeFlag parses a size option; 0 when it was not given.
func sizeFlag(c *cli.Context, name string) (int64, error) {
	if !c.IsSet(name) {
		return 0, nil
	}
	n, err := config.ParseSize(c.String(name))
	if err != nil {
		return 0, &exitError{exitUsage, err}
	}
	if n == 0 {
		return 0, usagef("--%s: a disk of no bytes is no disk", name)
	}
	return int64(n), nil
}

func (e *env) dir() statedir.Dir { return statedir.Dir(e.settings.StateDir) }

// daemon connects to the daemon and starts one when there is none.
func (e *env) daemon(ctx context.Context) (*client.Client, error) {
	return client.Connect(ctx, e.settings)
}

// waitGone lets a daemon that ends let go of the state dir, so that the next command finds it free.
func (e *env) waitGone(ctx context.Context) {
	const enough = 5 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), enough)
	defer cancel()
	client.WaitGone(ctx, e.dir())
}

// say prints a line for people, unless they want JSON or nothing.
func (e *env) say(format string, args ...any) {
	if !e.json && !e.quiet {
		fmt.Fprintf(e.out, format+"\n", args...)
	}
}

// result prints v with --json, and otherwise the line.
func (e *env) result(v any, format string, args ...any) error {
	if e.json {
		return e.printJSON(v)
	}
	e.say(format, args...)
	return nil
}

func (e *env) printJSON(v any) error {
	enc := json.NewEncoder(e.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// command is how to run one of our commands with this state dir.
func (e *env) command(words string) string { return e.settings.Command(words) }
