package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/client"
	"glidefs-appliance/appliance/config"
)

func detachCommand() *cli.Command {
	return &cli.Command{
		Name:      "detach",
		Usage:     "upload everything and give a disk up",
		ArgsUsage: "NAME",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "no-sync", Usage: "upload nothing now; what is not in the store stays safe in the log"},
			&cli.BoolFlag{Name: "force", Usage: "at once: whoever uses the disk gets EIO; implies --no-sync"},
		},
		OnUsageError: usageError,
		Action:       with(detach),
	}
}

func detach(ctx context.Context, e *env, c *cli.Context) error {
	if err := operands(c, "NAME"); err != nil {
		return err
	}
	d, err := e.daemon(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	l := leave{name: c.Args().First(), done: "detached", force: c.Bool("force"), noSync: c.Bool("no-sync") || c.Bool("force")}
	return l.run(ctx, e, d)
}

// leave gives a disk up, after uploading what it has; umount and detach end with it.
type leave struct {
	name   string
	done   string // what has happened to the disk, for the last line
	noSync bool
	force  bool
}

// left is what leave prints with --json.
type left struct {
	Name          string `json:"name"`
	UploadedBytes int64  `json:"uploaded_bytes"`
	api.Detached
}

// run uploads until all is in the store, the store has been away for too long or the user has had enough, and then
// detaches in any case.
func (l leave) run(ctx context.Context, e *env, d *client.Client) error {
	begin := time.Now()
	var synced api.Synced
	var why error
	if !l.noSync {
		if synced, why = syncDisk(ctx, e, d, l.name); notFound(why) {
			return why
		}
	}
	const enough = 30 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), enough)
	defer cancel()
	// A cancelled stream takes its connection along; the daemon answers on another one.
	r, err := d.Detach(ctx, l.name, api.Detach{Force: l.force})
	if notFound(err) && synced.Left {
		r, err = api.Detached{Closed: true}, nil // the store has now what an earlier detach had left here
	}
	if err != nil {
		return errors.Join(why, err)
	}
	if r.DirtyWrites > 0 && !l.noSync && why == nil {
		r, why = l.rest(ctx, e, d, r)
	}
	d.Close()
	if r.Ending {
		e.waitGone(ctx)
	}
	if e.json {
		if err := e.printJSON(left{l.name, synced.Total, r}); err != nil {
			return err
		}
	}
	if r.DirtyWrites > 0 || !r.Closed && !l.force {
		return l.notAll(e, r, why)
	}
	e.say("%s: disk %q, all of it in the store%s", l.done, l.name, took(synced.Total, time.Since(begin)))
	return nil
}

func took(bytes int64, d time.Duration) string {
	if bytes == 0 {
		return ""
	}
	return fmt.Sprintf(" (uploaded %s in %s)", config.Human(bytes), d.Round(100*time.Millisecond))
}

// rest uploads what was written between the end of the upload and the detach; nobody can write now.
func (l leave) rest(ctx context.Context, e *env, d *client.Client, r api.Detached) (api.Detached, error) {
	if _, err := syncDisk(ctx, e, d, l.name); err != nil {
		return r, err
	}
	return api.Detached{Closed: true, Ending: r.Ending}, nil
}

// notAll is exit 3: what is left, why, and what to do about it.
func (l leave) notAll(e *env, r api.Detached, why error) error {
	reason := ""
	refused := (*api.Error)(nil)
	switch {
	case errors.As(why, &refused) && refused.Code == api.CodeOwned:
		return fmt.Errorf("%s: %w", l.done, why)
	case errors.Is(why, context.Canceled):
		reason = " (interrupted)"
	case why != nil:
		reason = " (" + why.Error() + ")"
	}
	if r.DirtyWrites == 0 {
		return &exitError{exitNotAll, fmt.Errorf("%s: disk %q, but the store does not know yet that it is closed%s; `%s` tells it",
			l.done, l.name, reason, e.command("sync "+l.name))}
	}
	return &exitError{exitNotAll, fmt.Errorf("%s: disk %q, but %s are not in the store%s; they are safe in the log here, and `%s` uploads them",
		l.done, l.name, owed(r.DirtyBytes, r.DirtyWrites), reason, e.command("sync "+l.name))}
}

// owed says how much is not in the store. The bytes of a disk that could not be opened are not known.
func owed(bytes int64, writes uint64) string {
	if bytes == 0 && writes > 0 {
		return fmt.Sprintf("%d writes", writes)
	}
	return fmt.Sprintf("%s in %d writes", config.Human(bytes), writes)
}

func notFound(err error) bool {
	a := (*api.Error)(nil)
	return errors.As(err, &a) && a.Code == api.CodeNotFound
}
