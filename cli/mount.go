package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/client"
	"glidefs-appliance/appliance/config"
	"glidefs-appliance/appliance/mounts"
)

const defaultFS = "ext4"

func mountCommand() *cli.Command {
	return &cli.Command{
		Name:  "mount",
		Usage: "mount a disk, making it and its file system when they aren't there",
		Description: "Without DIR it does what " + config.MountFiles + "/NAME.toml says (dir, size, fs, frontend, read_only;\n" +
			"all optional); DIR is " + config.MountDirs + "/NAME then.",
		ArgsUsage: "NAME [DIR]",
		Flags: append(attachFlags(),
			&cli.StringFlag{Name: "fs", Usage: "file system for a blank disk, `KIND`: " + strings.Join(mounts.Kinds(), ", ") + " (default " + defaultFS + ")"},
			&cli.BoolFlag{Name: "foreground", Usage: "stay, and unmount with upload on SIGINT or SIGTERM"},
		),
		OnUsageError: usageError,
		Action:       with(mount),
	}
}

// mountJob is one mount, settled.
type mountJob struct {
	e    *env
	name string
	dir  string
	ours bool   // nobody named the directory: it is made
	fs   string // "" when nobody asked for one
	req  api.Attach
}

// mounted is what mount prints with --json.
type mounted struct {
	api.Attached
	Dir    string `json:"dir"`
	Device string `json:"device"` // the block device below the file system
	FS     string `json:"fs"`
	Made   bool   `json:"made_fs"`
	There  bool   `json:"already_mounted"`
}

func mount(ctx context.Context, e *env, c *cli.Context) error {
	j, err := newMountJob(e, c)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("mount needs root, for the loop device and the file system; without root, `%s` gives the disk as a file, which needs fusermount3 only", e.command("attach --frontend fuse "+j.name))
	}
	if j.ours {
		if err := os.MkdirAll(j.dir, 0o755); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
	}
	m, err := j.run(ctx)
	if err != nil {
		return err
	}
	if err := e.result(m, "%s", m.line()); err != nil || !c.Bool("foreground") {
		return err
	}
	<-ctx.Done()
	again, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return unmountDisk(again, e, j.dir, false)
}

// newMountJob takes the command line, and for what it leaves open the disk's mount file.
func newMountJob(e *env, c *cli.Context) (*mountJob, error) {
	if n := c.NArg(); n < 1 || n > 2 {
		return nil, operands(c, "NAME", "DIR")
	}
	req, err := attachRequest(c)
	if err != nil {
		return nil, err
	}
	j := &mountJob{e: e, name: c.Args().Get(0), dir: c.Args().Get(1), fs: c.String("fs"), req: req}
	if j.dir == "" {
		if err := j.fromFile(); err != nil {
			return nil, err
		}
	}
	j.req.Frontend = e.frontend(j.req.Frontend, "")
	if j.fs != "" && !slices.Contains(mounts.Kinds(), j.fs) {
		return nil, usagef("--fs %s: use one of %s", j.fs, strings.Join(mounts.Kinds(), ", "))
	}
	return j, nil
}

func (j *mountJob) fromFile() error {
	f, err := config.LoadMount(config.MountFiles, filepath.Base(j.name))
	if err != nil {
		return err
	}
	j.dir = or(f.Dir, filepath.Join(config.MountDirs, filepath.Base(j.name)))
	j.fs = or(j.fs, f.FS)
	if j.req.Size == 0 {
		j.req.Size = int64(f.Size)
	}
	j.req.Frontend = j.e.frontend(j.req.Frontend, f.Frontend)
	j.req.ReadOnly = j.req.ReadOnly || f.ReadOnly
	j.ours = true
	return nil
}

func (j *mountJob) run(ctx context.Context) (mounted, error) {
	if _, err := os.Lstat(j.dir); errors.Is(err, os.ErrNotExist) {
		return mounted{}, fmt.Errorf("%s does not exist; make it first: mkdir -p %s", j.dir, j.dir)
	}
	if _, err := mounts.CleanDead(j.e.dir().Fuse()); err != nil {
		return mounted{}, fmt.Errorf("clean up what a dead daemon left: %w", err)
	}
	dir, err := mounts.PrepareDir(j.dir)
	there := (*mounts.MountedError)(nil)
	if err != nil && !errors.As(err, &there) {
		return mounted{}, err
	}
	if there != nil && diskOf(ctx, j.e, there.Info) != j.name {
		return mounted{}, fmt.Errorf("%w; choose another directory, or umount it first", err)
	}
	d, err := j.e.daemon(ctx)
	if err != nil {
		return mounted{}, err
	}
	defer d.Close()
	j.req.Bare = true // what holds partitions is refused below
	a, err := d.Attach(ctx, j.name, j.req)
	if err != nil {
		return mounted{}, err
	}
	if there != nil {
		return j.already(a, there.Info)
	}
	m, err := j.onDevice(ctx, a, dir)
	if err != nil && !a.Already {
		err = errors.Join(err, j.giveUp(d))
	}
	return m, err
}

// already answers for a disk that is mounted there.
func (j *mountJob) already(a api.Attached, m mounts.Info) (mounted, error) {
	return mounted{Attached: a, Dir: m.Dir, Device: m.Source, FS: m.FSType, There: true}, j.asked(m.FSType)
}

// giveUp undoes an attach after something later failed.
func (j *mountJob) giveUp(d *client.Client) error {
	const enough = 20 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), enough)
	defer cancel()
	r, err := d.Detach(ctx, j.name, api.Detach{})
	d.Close()
	if r.Ending {
		j.e.waitGone(ctx)
	}
	return err
}

// onDevice mounts what is on the disk's block device, or on a loop device over its file, after making a file system on a
// blank disk.
func (j *mountJob) onDevice(ctx context.Context, a api.Attached, dir string) (mounted, error) {
	if _, err := os.Stat(a.Path); errors.Is(err, os.ErrNotExist) {
		return mounted{}, fmt.Errorf("the daemon of %s has attached disk %q, but %s is not to be seen here: the daemon runs in another mount namespace (a container, or a service with PrivateTmp); run mount there, or use another --state-dir", j.e.dir(), j.name, a.Path)
	}
	if !a.ReadOnly { // who only reads can do no harm
		claim, err := mounts.Claim(ctx, a.Path)
		if err != nil {
			return mounted{}, fmt.Errorf("mount disk %q: %w", j.name, err)
		}
		defer claim.Close()
	}
	m, there, err := mounts.At(dir)
	switch {
	case err != nil:
		return mounted{}, err
	case there && diskOf(ctx, j.e, m) == j.name:
		return j.already(a, m) // somebody else has just done the same
	}
	if err := j.unused(a); err != nil {
		return mounted{}, err
	}
	if a.Frontend != "fuse" {
		return j.mount(ctx, a, a.Path, dir)
	}
	loop, err := mounts.Attach(a.Path, mounts.LoopOptions{Sector: a.Sector, ReadOnly: a.ReadOnly})
	if err != nil {
		return mounted{}, fmt.Errorf("%w; `%s` gives the disk as a file without a loop device", err, j.e.command("attach "+j.name))
	}
	defer loop.Close() // the loop device goes with its last user, so that nothing is left when something fails
	return j.mount(ctx, a, loop.Device(), dir)
}

func (j *mountJob) mount(ctx context.Context, a api.Attached, dev, dir string) (mounted, error) {
	m := mounted{Attached: a, Dir: dir, Device: dev}
	var err error
	if m.Made, err = j.format(ctx, dev, a); err != nil {
		return mounted{}, err
	}
	m.FS, err = mounts.Mount(ctx, dev, dir, a.ReadOnly)
	return m, err
}

// unused refuses a disk that is mounted elsewhere: a second loop device over it would be a second, unaware file system.
func (j *mountJob) unused(a api.Attached) error {
	places, err := mounts.ReadPlaces(j.e.dir().Fuse())
	if err != nil {
		return err
	}
	if at := places[a.Path]; len(at) > 0 {
		return fmt.Errorf("disk %q is mounted on %s already; umount it there first", j.name, strings.Join(at, " and "))
	}
	loops, err := mounts.LoopsOf(a.Path)
	if err != nil {
		return err
	}
	if len(loops) > 0 {
		return fmt.Errorf("disk %q is in use through %s; let go of that first (losetup -d)", j.name, strings.Join(loops, " and "))
	}
	return nil
}

// format makes a file system on a blank disk, and only there.
func (j *mountJob) format(ctx context.Context, dev string, a api.Attached) (made bool, err error) {
	blank, found, err := mounts.Blank(ctx, dev)
	if err != nil {
		return false, err
	}
	if !blank {
		return false, j.fits(ctx, dev, found)
	}
	if a.ReadOnly {
		return false, fmt.Errorf("disk %q is blank; there is nothing to mount read-only", j.name)
	}
	return true, mounts.MakeFS(ctx, dev, or(j.fs, defaultFS))
}

// fits checks what is on a disk that is not blank.
func (j *mountJob) fits(ctx context.Context, dev, found string) error {
	fs, err := mounts.FSType(ctx, dev)
	switch {
	case err != nil:
		return err
	case fs == "" || !slices.Contains(mounts.Kinds(), fs):
		return fmt.Errorf("disk %q holds %s; mount formats blank disks only. `%s` gives the disk as it is", j.name, found, j.e.command("attach "+j.name))
	}
	return j.asked(fs)
}

// asked refuses the file system of a disk when another one was asked for.
func (j *mountJob) asked(fs string) error {
	if j.fs == "" || j.fs == fs {
		return nil
	}
	return fmt.Errorf("disk %q holds %s, not %s, and is never formatted again; leave --fs out, or use another disk", j.name, fs, j.fs)
}

// line says what happened, through which frontend, and why that one.
func (m mounted) line() string {
	if m.There {
		return fmt.Sprintf("disk %q is mounted on %s already (%s on %s, frontend %s)", m.Name, m.Dir, m.FS, m.Device, m.Frontend)
	}
	how := "mounted"
	if m.Created {
		how = "made and mounted"
	}
	fs := m.FS
	if m.Made {
		fs = "new " + m.FS
	}
	if m.ReadOnly {
		fs += ", read-only"
	}
	return fmt.Sprintf("%s disk %q (%s, %s) on %s through %s (%s), %s %s", how, m.Name, config.Size(m.Size), fs, m.Dir, m.Frontend, m.Why, m.kind(), m.Device)
}

func (m mounted) kind() string {
	if m.Device == m.Path {
		return "block device"
	}
	return "loop device"
}

// diskOf names the disk of our state dir that a mount shows, "" if it shows none.
func diskOf(ctx context.Context, e *env, m mounts.Info) string {
	if m.Backing == "" {
		return diskOn(ctx, e, m.Source)
	}
	if file := mounts.FileOf(m.Source, e.dir().Fuse()); file != "" {
		return filepath.Base(file)
	}
	return ""
}

// diskOn names the disk that has a block device, "" if none has.
func diskOn(ctx context.Context, e *env, device string) string {
	list, _, err := client.Status(ctx, e.dir(), statusPatience)
	if err != nil {
		return ""
	}
	for _, d := range list {
		if d.Device == device {
			return d.Name
		}
	}
	return ""
}

// mountedOn fills in where disks are mounted, as this process sees it. It looks at the mount table only.
func mountedOn(e *env, list []api.Disk) error {
	places, err := mounts.ReadPlaces(e.dir().Fuse())
	for i, d := range list {
		if at := places[d.Device]; d.Device != "" && len(at) > 0 {
			list[i].MountedOn = at
		}
	}
	return err
}
