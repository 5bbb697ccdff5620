package main

import (
	"context"

	"github.com/urfave/cli/v2"
)

func salvageCommand() *cli.Command {
	return &cli.Command{
		Name:         "salvage",
		Usage:        "make a new disk of what this host last had of a disk: its last instant in the store, and its log",
		ArgsUsage:    "NAME NEW",
		OnUsageError: usageError,
		Action:       with(salvage),
	}
}

func salvage(ctx context.Context, e *env, c *cli.Context) error {
	if err := operands(c, "NAME", "NEW"); err != nil {
		return err
	}
	d, err := e.daemon(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	name, as := c.Args().Get(0), c.Args().Get(1)
	p := newProgress(e, "salvaging "+name)
	err = d.Salvage(ctx, name, as, p.update)
	p.end(err == nil)
	if err != nil {
		return err
	}
	return e.result(map[string]string{"salvaged": name, "as": as}, "disk %q holds what this host had of %q; `%s` drops the log that is no longer needed", as, name, e.command("abandon "+name+" --yes"))
}
