package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"glidefs-appliance/appliance/doctor"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:         "doctor",
		Usage:        "say which frontends this host can use, and why not the others",
		Description:  "The first usable one is what a disk gets, unless --frontend or the configuration says otherwise. Block devices need root.",
		OnUsageError: usageError,
		Action: with(func(_ context.Context, e *env, c *cli.Context) error {
			if err := operands(c); err != nil {
				return err
			}
			return examine(e)
		}),
	}
}

func examine(e *env) error {
	list := doctor.Frontends()
	if e.json {
		return e.printJSON(list)
	}
	w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FRONTEND\tUSABLE\tSELF-TEST\tWHY")
	before, best := "", ""
	for _, f := range list {
		why := f.Reason
		if why == before {
			why = "the same"
		}
		before = f.Reason
		if f.Usable {
			best = or(best, f.Name)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", f.Name, map[bool]string{true: "yes", false: "no"}[f.Usable], or(f.SelfTest, "-"), why)
	}
	fmt.Fprintf(w, "\n%s\n%s\n", e.choice(best), doctor.Kernel())
	return w.Flush()
}

// choice says which frontend a disk gets on a host where this is the best one.
func (e *env) choice(best string) string {
	asked := e.frontend("", "")
	switch {
	case best == "":
		return "This host cannot use a disk: each line above says what is missing."
	case asked != "auto":
		return fmt.Sprintf("Disks are served through %s, as the configuration or GLIDEFS_FRONTEND says, unless --frontend says otherwise.", asked)
	}
	return fmt.Sprintf("Disks are served through %s here, unless --frontend says otherwise.", best)
}
