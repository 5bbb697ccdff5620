package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/config"
)

func lsCommand() *cli.Command {
	return &cli.Command{
		Name:         "ls",
		Usage:        "list the disks in the store",
		OnUsageError: usageError,
		Action:       with(ls),
	}
}

func ls(ctx context.Context, e *env, c *cli.Context) error {
	if err := operands(c); err != nil {
		return err
	}
	d, err := e.daemon(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	list, err := d.Volumes(ctx)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(list)
	}
	w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSIZE\tUSED\tLAST INSTANT\tOWNER")
	for _, v := range list {
		if v.Error != "" {
			fmt.Fprintf(w, "%s\t-\t-\t-\t%s\n", v.Name, v.Error)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", v.Name, config.Human(v.Size), config.Human(v.Used), lastInstant(v.Last), owner(v))
	}
	return w.Flush()
}

func lastInstant(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.Format(time.RFC3339)
}

func owner(v api.Volume) string {
	if v.Mine {
		return v.Owner + " (here)"
	}
	if v.Owner == "" {
		return "nobody"
	}
	return v.Owner
}
