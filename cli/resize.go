package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"glidefs-appliance/appliance/config"
)

func resizeCommand() *cli.Command {
	return &cli.Command{
		Name:         "resize",
		Usage:        "make a disk larger",
		ArgsUsage:    "NAME SIZE",
		OnUsageError: usageError,
		Action:       with(resize),
	}
}

func resize(ctx context.Context, e *env, c *cli.Context) error {
	if err := operands(c, "NAME", "SIZE"); err != nil {
		return err
	}
	size, err := config.ParseSize(c.Args().Get(1))
	if err != nil {
		return &exitError{exitUsage, err}
	}
	d, err := e.daemon(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	name := c.Args().First()
	r, err := d.Resize(ctx, name, int64(size))
	if err != nil {
		return err
	}
	if !r.Live {
		return e.result(r, "disk %q has %s from the next attach on", name, size)
	}
	return e.result(r, "disk %q has %s now; a loop device over it learns that by `losetup -c`, a file system by its own tool (resize2fs, xfs_growfs, btrfs filesystem resize)", name, size)
}
