package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/config"
)

func gcCommand() *cli.Command {
	return &cli.Command{
		Name:  "gc",
		Usage: "delete objects that no disk refers to",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "delete nothing, count only"},
			&cli.DurationFlag{Name: "grace", Usage: "keep garbage younger than `TIME` (default 168h); a shorter one is refused while a disk is open elsewhere, or being uploaded"},
		},
		OnUsageError: usageError,
		Action:       with(gc),
	}
}

func gc(ctx context.Context, e *env, c *cli.Context) error {
	if err := operands(c); err != nil {
		return err
	}
	if c.IsSet("grace") && c.Duration("grace") <= 0 {
		return usagef("--grace %s: garbage must be kept for some time, because uploads that run now have objects that nothing refers to yet", c.Duration("grace"))
	}
	d, err := e.daemon(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	r, err := d.GC(ctx, api.GC{DryRun: c.Bool("dry-run"), Grace: c.Duration("grace")})
	if err != nil {
		return err
	}
	verb := "deleted"
	if c.Bool("dry-run") {
		verb = "would delete"
	}
	return e.result(r, "%s %d objects, %s; %d are in use, %d wait for the grace time", verb, r.Deleted, config.Human(r.Bytes), r.Live, r.Waiting)
}
