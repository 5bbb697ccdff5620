package appliance

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/config"
	"glidefs-appliance/appliance/exports"
	"glidefs-appliance/appliance/metrics"
	"glidefs-appliance/appliance/statedir"
	"glidefs-appliance/backend/cache"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/open"
	"glidefs-appliance/backend/vfs"
	"glidefs-appliance/backend/volume"
	"glidefs-appliance/backend/wlog"
)

const (
	// probeTimeout bounds the first contact with a store.
	probeTimeout = 30 * time.Second
	// mapPages of all disks together are kept in memory; a full one takes 48 KiB.
	mapPages = 1024
	// scrubBytes of the clean cache are checked each second after a start, until all of it is.
	scrubBytes = 4 << 20
)

// engine is what the disks of a daemon share.
type engine struct {
	host  *volume.Host
	store *store.Stack
	cache *cache.Cache
	stop  context.CancelFunc
}

// openEngine opens the store, probes it when it is new to this state dir, and opens the clean cache.
func openEngine(s config.Settings, state *statedir.State, log *slog.Logger) (*engine, error) {
	e := &engine{}
	if err := e.openStore(s, state, log); err != nil {
		return nil, err
	}
	fsys := vfs.OS()
	logTotal, _, err := fsys.Usage(state.Logs())
	if err != nil {
		return nil, err
	}
	if err := e.openCache(s, fsys); err != nil {
		return nil, err
	}
	hostname, _ := os.Hostname()
	bootID, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	e.host = &volume.Host{
		FS:     fsys,
		Logs:   state.Logs(),
		BootID: strings.TrimSpace(string(bootID)), // "" is never the same boot: the careful recovery
		Owner:  manifest.Owner{State: state.ID, Host: hostname},
		Store:  e.store,
		Cache:  e.cache,
		Pages:  manifest.NewPages(e.store, mapPages),
		Budget: wlog.NewBudget(logBudget(s.File, logTotal)),
		Tuning: tuning(s.File),
		Log:    log,
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.stop = cancel
	go e.scrub(ctx)
	return e, nil
}

func (e *engine) openStore(s config.Settings, state *statedir.State, log *slog.Logger) error {
	url, err := state.Serve(s.Store, s.DefaultStore)
	if err != nil {
		return err
	}
	if strings.HasPrefix(url, "mem://") {
		return fmt.Errorf("store %s would be gone with the daemon; a store is file:///dir or s3://bucket/prefix", url)
	}
	if !state.Probed(url) {
		if err := firstContact(url, s, state); err != nil {
			return err
		}
	}
	impl, err := open.Open(url, open.Options{Known: true})
	if err != nil {
		return fmt.Errorf("store %s: %w", url, err)
	}
	e.store = store.NewStack(impl, store.StackOptions{
		Gateway: gateway(s.File),
		OnHealth: func(h store.Health) {
			log.Warn("store", "state", h.State, "since", h.Since, "err", h.LastError)
		},
	})
	return state.Record(url)
}

// firstContact probes a store that is new to this state dir.
func firstContact(url string, s config.Settings, state *statedir.State) error {
	// Only the default store is made: a folder that somebody named and that isn't there is more likely a mistake, or a
	// disk that is not mounted.
	impl, err := open.Open(url, open.Options{Create: url == s.DefaultStore && state.StoreURL() == ""})
	if err != nil {
		return fmt.Errorf("store %s: %w", url, err)
	}
	if err := probe(impl); err != nil {
		return explainStore(url, err)
	}
	return state.SetProbed(url)
}

// probe checks a store that this state dir has not used before. Without the retries of the stack: whoever mistyped an
// endpoint wants to know now. A probe that hangs is left behind, and the process ends.
func probe(impl store.Store) error {
	ctx, cancel := context.WithTimeout(store.With(context.Background(), store.Admin), probeTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- store.Probe(ctx, impl) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: no answer within %s", store.ErrUnavailable, probeTimeout)
	}
}

func (e *engine) openCache(s config.Settings, fsys vfs.FS) (err error) {
	if err := fsys.MkdirAll(s.CacheDir); err != nil {
		return fmt.Errorf("cache: %w; choose another cache_dir in the configuration file", err)
	}
	total, _, err := fsys.Usage(s.CacheDir)
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	e.cache, err = cache.Open(cache.Options{
		FS: fsys, Dir: s.CacheDir, Size: cacheBudget(s.File, total), VerifyAlways: s.File.VerifyReads == "always",
	})
	return err
}

// scrub checks what an earlier process left in the cache, slowly, and ends when all of it is checked.
func (e *engine) scrub(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for e.cache.Scrub(ctx, scrubBytes) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// health is the store's, for status and for those who wait.
func (e *engine) health() exports.Health {
	h, w := e.store.Health(), e.store.Writes()
	r := exports.Health{Text: "ok", Refusing: w.Since, Refused: w.Last}
	switch {
	case h.State != store.HealthOK:
		r.Text = fmt.Sprintf("%s since %s: %s", h.State, h.Since.UTC().Format(time.RFC3339), h.LastError)
		r.Away = h.Since
	case !w.Since.IsZero():
		r.Text = fmt.Sprintf("takes no writes since %s: %s", w.Since.UTC().Format(time.RFC3339), w.LastError)
	}
	return r
}

// usage fills what all disks share.
func (e *engine) usage() api.Host {
	c := e.cache.Stats()
	return api.Host{
		LogUsed: e.host.Budget.Used(), LogLimit: e.host.Budget.Total(),
		CacheUsed: c.Disk, CacheLimit: c.Capacity, DaemonPID: os.Getpid(),
	}
}

// counters is what the engine did, for metrics.
func (e *engine) counters() metrics.Engine {
	v, c := e.host.Counters(), e.cache.Stats()
	return metrics.Engine{
		DamagedObjects: v.Damaged, DamagedFrames: uint64(c.Damaged), CacheHits: uint64(c.Hits), CacheMisses: uint64(c.Misses),
		Batches: v.Batches, Merges: v.Merges,
	}
}

// requests is what was asked of the store, by cause, for metrics.
func (e *engine) requests() []metrics.Requests {
	stats := e.store.Stats()
	var list []metrics.Requests
	for class := range store.NumClasses {
		r := metrics.Requests{Class: class.String()}
		for _, op := range stats.Ops[class] {
			r.Requests += op.Requests
			r.Errors += op.Errors
			r.Sent += op.Up
			r.Received += op.Down
		}
		list = append(list, r)
	}
	return list
}

func (e *engine) close() {
	e.stop()
	if err := e.cache.Close(); err != nil {
		e.host.Log.Warn("cache", "err", err)
	}
}
