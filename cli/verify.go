package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"glidefs-appliance/appliance/config"
)

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name:         "verify",
		Usage:        "read and check every object of a disk",
		ArgsUsage:    "NAME",
		OnUsageError: usageError,
		Action:       with(verify),
	}
}

func verify(ctx context.Context, e *env, c *cli.Context) error {
	if err := operands(c, "NAME"); err != nil {
		return err
	}
	d, err := e.daemon(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	name := c.Args().First()
	p := newProgress(e, "verifying "+name)
	r, err := d.Verify(ctx, name, p.update)
	p.end(err == nil)
	if err != nil {
		return err
	}
	if err := e.result(r, "disk %q: read %d objects, %s", name, r.Objects, config.Human(r.Bytes)); err != nil {
		return err
	}
	if len(r.Damaged) == 0 {
		return nil
	}
	for _, d := range r.Damaged {
		e.say("damaged: bytes %d to %d (%s: %s)", d.Off, d.Off+d.Len-1, d.Object, d.Reason)
	}
	return fmt.Errorf("disk %q: %d damaged ranges; reading them gives EIO, writing them again repairs them", name, len(r.Damaged))
}
