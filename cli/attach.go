package main

import (
	"context"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"glidefs-appliance/appliance/api"
)

// attachFlags are common to attach and mount.
func attachFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "size", Usage: "`SIZE` of a new disk, like 512M, 10G or 2T (default 10G)"},
		&cli.IntFlag{Name: "sector", Usage: "logical block of a new disk, `BYTES`: 4096 (default) or 512"},
		&cli.StringFlag{Name: "frontend", Usage: "`KIND`: auto, ublk-zc, ublk-copy or fuse; see doctor [$GLIDEFS_FRONTEND]"},
		&cli.BoolFlag{Name: "read-only", Usage: "as of the store's last exact instant; asks no other owner"},
		&cli.BoolFlag{Name: "takeover", Usage: "open a disk that another host owns, and fence that host"},
	}
}

func attachRequest(c *cli.Context) (api.Attach, error) {
	size, err := sizeFlag(c, "size")
	return api.Attach{
		Size: size, Create: true, Sector: c.Int("sector"),
		Takeover: c.Bool("takeover"), ReadOnly: c.Bool("read-only"), Frontend: c.String("frontend"),
	}, err
}

// frontend is what was asked for: by the option, else in the environment, in a mount file, in the configuration.
func (e *env) frontend(option, mountFile string) string {
	return or(option, or(os.Getenv("GLIDEFS_FRONTEND"), or(mountFile, or(e.settings.File.Frontend, "auto"))))
}

func attachCommand() *cli.Command {
	return &cli.Command{
		Name:         "attach",
		Usage:        "make a disk a block device or a file, and print its path",
		ArgsUsage:    "NAME",
		Flags:        attachFlags(),
		OnUsageError: usageError,
		Action:       with(attach),
	}
}

func attach(ctx context.Context, e *env, c *cli.Context) error {
	if err := operands(c, "NAME"); err != nil {
		return err
	}
	req, err := attachRequest(c)
	if err != nil {
		return err
	}
	req.Frontend = e.frontend(req.Frontend, "")
	d, err := e.daemon(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	r, err := d.Attach(ctx, c.Args().First(), req)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(r)
	}
	// The path is the result: --quiet does not silence it.
	_, err = fmt.Fprintln(e.out, r.Path)
	return err
}
