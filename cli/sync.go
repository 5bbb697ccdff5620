package main

import (
	"context"
	"errors"
	"time"

	"github.com/urfave/cli/v2"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/client"
)

func syncCommand() *cli.Command {
	return &cli.Command{
		Name:         "sync",
		Usage:        "return once everything written up to now is in the store",
		ArgsUsage:    "NAME",
		OnUsageError: usageError,
		Action:       with(syncAction),
	}
}

func syncAction(ctx context.Context, e *env, c *cli.Context) error {
	if err := operands(c, "NAME"); err != nil {
		return err
	}
	d, err := e.daemon(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	name, begin := c.Args().First(), time.Now()
	r, err := syncDisk(ctx, e, d, name)
	if a := (*api.Error)(nil); errors.Is(err, context.Canceled) || errors.As(err, &a) && a.Code == api.CodeOffline {
		return &exitError{exitNotAll, err}
	}
	if err != nil {
		return err
	}
	return e.result(r, "disk %q: everything is in the store%s", name, took(r.Total, time.Since(begin)))
}

// syncDisk uploads with a progress bar.
func syncDisk(ctx context.Context, e *env, d *client.Client, name string) (api.Synced, error) {
	p := newProgress(e, "uploading "+name)
	r, err := d.Sync(ctx, name, p.update)
	p.end(err == nil)
	if ctx.Err() != nil {
		return r, context.Cause(ctx)
	}
	return r, err
}
