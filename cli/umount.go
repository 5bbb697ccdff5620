package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"glidefs-appliance/appliance/client"
	"glidefs-appliance/appliance/mounts"
)

func umountCommand() *cli.Command {
	return &cli.Command{
		Name:      "umount",
		Usage:     "unmount a disk, upload everything, give it up",
		ArgsUsage: "DIR (or the disk's NAME)",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "no-sync", Usage: "upload nothing now; what is not in the store stays safe in the log"},
		},
		OnUsageError: usageError,
		Action: with(func(ctx context.Context, e *env, c *cli.Context) error {
			if err := operands(c, "DIR"); err != nil {
				return err
			}
			return unmountDisk(ctx, e, c.Args().First(), c.Bool("no-sync"))
		}),
	}
}

// unmountDisk unmounts first, so that nothing is written any more, and then uploads and detaches.
func unmountDisk(ctx context.Context, e *env, dir string, noSync bool) error {
	dir, name, err := findMount(ctx, e, dir)
	if err != nil {
		return err
	}
	if _, err := mounts.CleanDead(e.dir().Fuse()); err != nil {
		return fmt.Errorf("clean up what a dead daemon left: %w", err)
	}
	// CleanDead has unmounted it already when its daemon had died.
	var lost error
	if _, there, err := mounts.At(dir); err != nil {
		return err
	} else if there {
		lost = mounts.Unmount(context.WithoutCancel(ctx), dir)
		if lost != nil && !errors.Is(lost, mounts.ErrNotSynced) {
			return lost
		}
	}
	d, err := e.daemon(context.WithoutCancel(ctx))
	if err != nil {
		return errors.Join(lost, err)
	}
	defer d.Close()
	l := leave{name: name, done: "unmounted " + dir, noSync: noSync}
	return errors.Join(lost, l.run(ctx, e, d))
}

// findMount settles the directory and the disk from either's name.
func findMount(ctx context.Context, e *env, arg string) (dir, name string, err error) {
	if m, ok, err := mounts.At(arg); err == nil && ok {
		if name := diskOf(e, m); name != "" {
			return m.Dir, name, nil
		}
		return "", "", fmt.Errorf("what is mounted on %s is no disk of the state dir %s; if it is one of another state dir, say --state-dir", arg, e.dir())
	}
	if !strings.Contains(arg, "/") {
		if dir := mountOfDisk(ctx, e, arg); dir != "" {
			return dir, arg, nil
		}
	}
	return "", "", fmt.Errorf("no disk is mounted on %s; `%s` shows what is mounted where", arg, e.command("status"))
}

// mountOfDisk is where a disk is mounted, "" if it isn't.
func mountOfDisk(ctx context.Context, e *env, name string) string {
	list, _, err := client.Status(ctx, e.dir(), statusPatience)
	if err != nil {
		return ""
	}
	list = only(list, name)
	if mountedOn(list) != nil || len(list) == 0 || len(list[0].MountedOn) == 0 {
		return ""
	}
	return list[0].MountedOn[0]
}
