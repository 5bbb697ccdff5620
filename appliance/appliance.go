package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/exports"
	"glidefs-appliance/appliance/logfile"
	"glidefs-appliance/appliance/metrics"
	"glidefs-appliance/appliance/notify"
	"glidefs-appliance/appliance/server"
	"glidefs-appliance/appliance/statedir"
	"glidefs-appliance/appliance/statuspage"
)

const (
	// sweepEvery is how often the status page is written while something is attached.
	sweepEvery = time.Second
	// guardEvery is how often the state dir is looked for.
	guardEvery = 2 * time.Second
)

// daemon is everything that is open, in the order it was opened.
type daemon struct {
	o       Options
	state   *statedir.State
	log     *slog.Logger
	logFile *logfile.File
	page    *statuspage.Page
	engine  *engine
	disks   *exports.Manager
	life    *life
	http    *http.Server
	socket  net.Listener
	restore func()
	// stopBackground ends what the disks' manager runs in the background.
	stopBackground func()
	// refresh asks for a status page now; the channel is closed when it is written.
	refresh chan chan struct{}
}

// start opens everything up to the socket. On an error nothing stays open, except for memory: the process ends.
func start(o Options) (*daemon, error) {
	limitMemory(os.Getenv)
	d := &daemon{o: o, refresh: make(chan chan struct{})}
	for _, step := range []func() error{d.openState, d.openEngine, d.openDisks, d.listen} {
		if err := step(); err != nil {
			d.close()
			return nil, err
		}
	}
	return d, nil
}

func (d *daemon) openState() (err error) {
	if d.state, err = statedir.Open(d.o.Settings.StateDir); err != nil {
		return err
	}
	if d.log, d.logFile, err = logger(d.state.Dir, d.o.Background, d.o.Settings.File.Debug); err != nil {
		return err
	}
	d.page, err = statuspage.Open(d.state.StatusPage())
	return err
}

func (d *daemon) openEngine() (err error) {
	d.engine, err = openEngine(d.o.Settings, d.state, d.log)
	return err
}

func (d *daemon) openDisks() (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	d.stopBackground = cancel
	d.disks = exports.New(exports.Options{
		Life:        ctx,
		Host:        d.engine.host,
		State:       d.state,
		Log:         d.log,
		Health:      d.engine.health,
		Usage:       d.engine.usage,
		Program:     d.o.Settings.Program(),
		SyncTimeout: d.o.Settings.File.SyncTimeoutOr(defaultSyncLimit),
		Events:      d.events(),
	})
	d.engine.host.Merged = d.disks.CollectSoon
	d.life = newLife(!d.o.Background && !d.o.UntilIdle, d.disks.Attached)
	d.restore, err = d.disks.Restore(context.Background())
	return err
}

// listen makes the socket, over one that a dead daemon left: we hold the lock, so nobody listens there.
func (d *daemon) listen() error {
	path := d.state.Socket()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("socket: %w", err)
	}
	socket, err := listenUnix(path)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	d.socket = socket
	about := api.Daemon{
		Version: d.o.Version, PID: os.Getpid(), Store: d.engine.host.Store.URL(),
	}
	counters := metrics.Handler(metrics.Sources{Disks: d.disks.Status, Requests: d.engine.requests, Engine: d.counters})
	d.http = &http.Server{
		Handler:           server.New(d.disks, about, counters, d.life.ending),
		ConnState:         d.life.connection,
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelWarn),
	}
	return nil
}

// counters of the engine and the block devices.
func (d *daemon) counters() metrics.Engine {
	e := d.engine.counters()
	e.Ublk, e.Sizes = d.disks.Ublk(), d.disks.Sizes()
	return e
}

// run serves until the daemon has a reason to end, and closes everything.
func (d *daemon) run() {
	d.log.Info("daemon started", "version", d.o.Version, "pid", os.Getpid(), "store", d.engine.host.Store.URL())
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	context.AfterFunc(ctx, d.life.end)
	go d.serve()
	go d.guard()
	go func() {
		d.restore()
		d.life.restored()
	}()
	d.watch()
	d.close()
}

func (d *daemon) serve() {
	if err := d.http.Serve(d.socket); !errors.Is(err, http.ErrServerClosed) {
		d.log.Error("the socket broke; the daemon ends", "err", err)
		d.life.end()
	}
}

// guard ends the daemon when its state dir is not there any more: nobody can reach it, and another one may begin at the
// same path.
func (d *daemon) guard() {
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for !d.state.Gone() {
		select {
		case <-tick.C:
		case <-d.life.done:
			return
		}
	}
	d.life.end()
}

// watch keeps the status page up to date until the daemon ends. With nothing attached it sleeps.
func (d *daemon) watch() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var asked []chan struct{}
	for {
		list := d.disks.Status()
		d.disks.Sweep(list)
		d.publish(list)
		for _, done := range asked {
			close(done)
		}
		asked = asked[:0]
		every := tick.C
		if len(list) == 0 {
			every = nil
		}
		select {
		case <-d.life.done:
			return
		case <-every:
		case done := <-d.refresh:
			asked = append(d.alsoAsked(), done)
		}
	}
}

// alsoAsked collects who asks at the same moment, so that one page answers all.
func (d *daemon) alsoAsked() (asked []chan struct{}) {
	for {
		select {
		case done := <-d.refresh:
			asked = append(asked, done)
		default:
			return asked
		}
	}
}

// onPage returns when a page is written that shows what has happened so far, so that whoever is told of it finds it
// there, whatever becomes of the daemon.
func (d *daemon) onPage() {
	done := make(chan struct{})
	select {
	case d.refresh <- done:
		<-done
	case <-d.life.done: // the last page is written at the very end
	}
}

func (d *daemon) publish(list []api.Disk) {
	b, err := json.Marshal(list)
	if err == nil {
		err = d.page.Write(b)
	}
	if err != nil {
		d.log.Warn("status page", "err", err)
	}
}

// events log what happens to disks, and have it on the status page before it is acknowledged.
func (d *daemon) events() exports.Events {
	return exports.Events{
		Attached: func(a api.Attached) {
			d.log.Info("attached", "disk", a.Name, "size", a.Size, "frontend", a.Frontend, "created", a.Created, "read_only", a.ReadOnly)
			d.onPage()
		},
		Detached: func(name string, r api.Detached) {
			d.log.Info("detached", "disk", name, "dirty_bytes", r.DirtyBytes, "closed", r.Closed)
			d.onPage()
		},
		Changed: func(s api.Disk, was string) {
			d.log.Warn("disk changed state", "disk", s.Name, "state", s.State, "was", was, "reason", s.Reason)
		},
	}
}

// rescue uploads what is only in write logs that were deleted. It says so where it may be read: in the log's place, if
// the folder is there, and on standard error.
func (d *daemon) rescue() {
	_ = d.logFile.Reopen() // or the lines are lost; nothing else is
	d.log.Error("the state dir was deleted, moved or replaced: the daemon takes the disks from their users, uploads what their write logs hold, and ends", "dir", d.state.Dir)
	d.disks.Rescue(context.Background())
}

// close is the shutdown order of the package comment; it also undoes a start that failed half way.
func (d *daemon) close() {
	if d.stopBackground != nil {
		d.stopBackground()
	}
	if d.socket != nil {
		notify.Stopping()
		_ = d.http.Close() // cancels what runs; nothing is left to do about an error
		d.socket.Close()
		if !d.state.Gone() {
			_ = os.Remove(d.state.Socket())
		}
	}
	if d.disks != nil {
		if d.state.Gone() {
			d.rescue()
		}
		d.disks.Stop(context.Background())
		d.publish(d.disks.Status())
	}
	if d.engine != nil {
		d.engine.close()
	}
	if d.page != nil {
		_ = d.page.Close()
	}
	if d.logFile != nil {
		d.log.Info("daemon ends")
		_ = d.logFile.Close()
	}
	if d.state != nil {
		_ = d.state.Close()
	}
}
