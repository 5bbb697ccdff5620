package main

import (
	"context"

	"github.com/urfave/cli/v2"
)

func abandonCommand() *cli.Command {
	return &cli.Command{
		Name:         "abandon",
		Usage:        "drop this host's write log of a disk, and with it the writes that are only there",
		ArgsUsage:    "NAME",
		Flags:        []cli.Flag{yesFlag()},
		OnUsageError: usageError,
		Action:       with(abandon),
	}
}

func abandon(ctx context.Context, e *env, c *cli.Context) error {
	if err := operands(c, "NAME"); err != nil {
		return err
	}
	name, sure := c.Args().First(), c.Bool("yes")
	d, err := e.daemon(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	r, err := d.Abandon(ctx, name, !sure)
	if err != nil {
		return err
	}
	if !sure {
		return usagef("abandon drops %d writes of disk %q that are only here; say so with --yes", r.Writes, name)
	}
	return e.result(r, "dropped the log of disk %q with %d writes that were only here", name, r.Writes)
}
