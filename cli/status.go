package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/client"
	"glidefs-appliance/appliance/config"
)

// statusPatience is how long a daemon may take to answer before its page speaks for it.
const statusPatience = 300 * time.Millisecond

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:         "status",
		Usage:        "show the attached disks, at once in every state",
		ArgsUsage:    "[NAME]",
		OnUsageError: usageError,
		Action:       with(status),
	}
}

func status(ctx context.Context, e *env, c *cli.Context) error {
	if c.NArg() > 1 {
		return operands(c, "at most one NAME")
	}
	list, daemon, err := client.Status(ctx, e.dir(), statusPatience)
	if err != nil {
		return err
	}
	if name := c.Args().First(); name != "" {
		if list = only(list, name); len(list) == 0 {
			return fmt.Errorf("disk %q is not attached (daemon %s); `%s` lists the disks in the store", name, daemon, e.command("ls"))
		}
	}
	if err := mountedOn(e, list); err != nil {
		return err
	}
	if e.json {
		return e.printJSON(list)
	}
	return printStatus(e.out, list, daemon)
}

func only(list []api.Disk, name string) []api.Disk {
	for _, d := range list {
		if d.Name == name {
			return []api.Disk{d}
		}
	}
	return []api.Disk{}
}

func printStatus(out io.Writer, list []api.Disk, daemon string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(list) == 0 {
		fmt.Fprintf(w, "no disk is attached; daemon %s\n", daemon)
		return w.Flush()
	}
	fmt.Fprintln(w, "NAME\tSIZE\tFRONTEND\tDEVICE\tMOUNTED ON\tSTATE\tNOT IN STORE\tOLDEST\tSTORE EXACT UP TO")
	for _, d := range list {
		fmt.Fprintln(w, strings.Join([]string{
			d.Name, size(d.SizeBytes), or(d.Frontend, "-"), or(d.Device, "-"), or(strings.Join(d.MountedOn, ","), "-"),
			d.State, missing(d), age(d.OldestDirty), barrier(d.BarrierTime),
		}, "\t"))
	}
	h := list[0].Host
	fmt.Fprintf(w, "\ndaemon %s (process %d, as of %s); store %s: %s\n", daemon, h.DaemonPID, h.AsOf.Format(time.RFC3339), h.Store, h.StoreHealth)
	fmt.Fprintf(w, "write logs %s of %s; cache %s of %s\n", config.Human(h.LogUsed), config.Human(h.LogLimit), config.Human(h.CacheUsed), config.Human(h.CacheLimit))
	for _, d := range list {
		if second := d.Frontend == "fuse" || d.Frontend == "ublk-copy"; second && d.Why != "" {
			fmt.Fprintf(w, "%s: frontend %s: %s\n", d.Name, d.Frontend, d.Why)
		}
		if d.Lost > 0 {
			fmt.Fprintf(w, "%s: objects in the store that are gone or damaged: %d; `verify %s` names what they held\n", d.Name, d.Lost, d.Name)
		}
		if d.Reason != "" {
			fmt.Fprintf(w, "%s: %s\n", d.Name, d.Reason)
		}
	}
	return w.Flush()
}

// missing is what the store has not.
func missing(d api.Disk) string {
	if d.DirtyBytes == 0 && d.DirtyWrites > 0 {
		return owed(0, d.DirtyWrites)
	}
	return config.Human(d.DirtyBytes)
}

// size of a disk; that of one that could not be opened may not be known.
func size(n int64) string {
	if n == 0 {
		return "-"
	}
	return config.Human(n)
}

func age(seconds float64) string {
	if seconds == 0 {
		return "-"
	}
	return (time.Duration(seconds*10) * time.Second / 10).String()
}

func barrier(t *string) string {
	if t == nil {
		return "never"
	}
	return *t
}

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// errSaid: somebody else has printed the reason.
var errSaid = errors.New("the daemon ended with an error")
