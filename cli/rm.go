package main

import (
	"context"

	"github.com/urfave/cli/v2"
)

func yesFlag() cli.Flag { return &cli.BoolFlag{Name: "yes", Usage: "really"} }

func rmCommand() *cli.Command {
	return &cli.Command{
		Name:         "rm",
		Usage:        "delete a disk from the store",
		ArgsUsage:    "NAME",
		Flags:        []cli.Flag{yesFlag()},
		OnUsageError: usageError,
		Action:       with(rm),
	}
}

func rm(ctx context.Context, e *env, c *cli.Context) error {
	if err := operands(c, "NAME"); err != nil {
		return err
	}
	name := c.Args().First()
	if !c.Bool("yes") {
		return usagef("rm deletes disk %q for everybody; say so with --yes", name)
	}
	d, err := e.daemon(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Remove(ctx, name); err != nil {
		return err
	}
	return e.result(map[string]string{"removed": name}, "removed disk %q; `%s` frees its space once the grace time has passed", name, e.command("gc"))
}
