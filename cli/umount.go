package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

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
	m, name, err := findMount(ctx, e, dir)
	if err != nil {
		return err
	}
	dir = m.Dir
	if _, err := mounts.CleanDead(e.dir().Fuse()); err != nil {
		return fmt.Errorf("clean up what a dead daemon left: %w", err)
	}
	// A mounted block device whose daemon has ended waits for the next one, and so would the unmounting.
	d, err := e.daemon(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	defer d.Close()
	// CleanDead has unmounted it already when its daemon had died.
	var lost error
	if _, there, err := mounts.At(dir); err != nil {
		return err
	} else if there {
		lost = mounts.Unmount(context.WithoutCancel(ctx), dir)
		if lost != nil && !errors.Is(lost, mounts.ErrNotSynced) {
			return lost
		}
		if err := released(ctx, e, m, name); err != nil {
			return errors.Join(lost, err)
		}
	}
	l := leave{name: name, done: "unmounted " + dir, noSync: noSync}
	return errors.Join(lost, l.run(ctx, e, d))
}

// releaseTime is how long the loop device below an unmounted file system may take to go.
const releaseTime = 10 * time.Second

// released waits until nobody writes to the disk any more. A file system that is also mounted in another mount namespace
// (a container, a service with PrivateTmp) lives on there after it was unmounted here, and with it the loop device.
func released(ctx context.Context, e *env, m mounts.Info, name string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(releaseTime)
	for m.Backing != "" && mounts.BackingFile(m.Source) == m.Backing {
		select {
		case <-tick.C:
		case <-late:
			return fmt.Errorf("%s is unmounted, but %s is still in use, probably by a container or service that sees a mount of its own; `%s` uploads and detaches the disk once that has ended",
				m.Dir, m.Source, e.command("detach "+name))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// findMount settles the mount and the disk from either's name.
func findMount(ctx context.Context, e *env, arg string) (m mounts.Info, name string, err error) {
	if m, ok, err := mounts.At(arg); err == nil && ok {
		if name := diskOf(ctx, e, m); name != "" {
			return m, name, nil
		}
		return m, "", fmt.Errorf("what is mounted on %s is no disk of the state dir %s; if it is one of another state dir, say --state-dir", arg, e.dir())
	}
	if !strings.Contains(arg, "/") {
		if dir := mountOfDisk(ctx, e, arg); dir != "" {
			m, _, err := mounts.At(dir)
			return m, arg, err
		}
	}
	return m, "", fmt.Errorf("no disk is mounted on %s; `%s` shows what is mounted where", arg, e.command("status"))
}

// mountOfDisk is where a disk is mounted, "" if it isn't.
func mountOfDisk(ctx context.Context, e *env, name string) string {
	list, _, err := client.Status(ctx, e.dir(), statusPatience)
	if err != nil {
		return ""
	}
	list = only(list, name)
	if mountedOn(e, list) != nil || len(list) == 0 || len(list[0].MountedOn) == 0 {
		return ""
	}
	return list[0].MountedOn[0]
}
