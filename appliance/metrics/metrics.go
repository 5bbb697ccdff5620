// Package metrics exposes the daemon's counters in Prometheus' text format. Everything is read when somebody asks.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/ublk"
)

// Requests counts what one cause has asked of the object store.
type Requests struct {
	Class    string // guest, manifest, upload, prefetch, compaction, gc, admin
	Requests uint64
	Errors   uint64
	Sent     uint64 // bytes
	Received uint64 // bytes
}

// Engine counts what all disks of the daemon did since it started.
type Engine struct {
	DamagedObjects uint64 // what was gone from the store or failed its checksum
	DamagedFrames  uint64 // clean frames on the local disk that did, and were fetched again
	CacheHits      uint64
	CacheMisses    uint64
	Batches        uint64 // uploaded
	Merges         uint64 // steps of compaction
	Ublk           ublk.Stats
	Sizes          map[string]frontends.SizeCounts // of the requests to each disk
}

// Sources are called at each scrape and must not block.
type Sources struct {
	Disks    func() []api.Disk
	Requests func() []Requests
	Engine   func() Engine
}

// Handler serves the metrics.
func Handler(s Sources) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collector{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

type collector struct{ s Sources }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("glidefs_"+name, help, labels, nil)
}

// One disk is one value of the label disk.
var perDisk = []struct {
	desc *prometheus.Desc
	get  func(api.Disk) float64
}{
	{desc("disk_size_bytes", "Size of the disk.", "disk"), func(d api.Disk) float64 { return float64(d.SizeBytes) }},
	{desc("disk_up", "1 when the disk is attached and its state is ok.", "disk"), func(d api.Disk) float64 { return truth(d.Attached && d.State == "ok") }},
	{desc("disk_dirty_bytes", "Acknowledged bytes that are not in the store.", "disk"), func(d api.Disk) float64 { return float64(d.DirtyBytes) }},
	{desc("disk_oldest_dirty_seconds", "Age of the oldest write that is not in the store.", "disk"), func(d api.Disk) float64 { return d.OldestDirty }},
	{desc("disk_waiting_requests", "Requests that wait for room in the log.", "disk"), func(d api.Disk) float64 { return float64(d.Waiting) }},
	{desc("disk_log_bytes", "Bytes of write log on the local disk.", "disk"), func(d api.Disk) float64 { return float64(d.LogBytes) }},
	{desc("disk_epoch", "Owners the disk has had.", "disk"), func(d api.Disk) float64 { return float64(d.Epoch) }},
}

var perHost = []struct {
	desc *prometheus.Desc
	get  func(api.Host) float64
}{
	{desc("log_used_bytes", "Write logs of all disks."), func(h api.Host) float64 { return float64(h.LogUsed) }},
	{desc("log_limit_bytes", "Room for write logs."), func(h api.Host) float64 { return float64(h.LogLimit) }},
	{desc("cache_used_bytes", "Clean cache."), func(h api.Host) float64 { return float64(h.CacheUsed) }},
	{desc("cache_limit_bytes", "Room for the clean cache."), func(h api.Host) float64 { return float64(h.CacheLimit) }},
	{desc("store_up", "1 when the object store answers."), func(h api.Host) float64 { return truth(h.StoreHealth == "ok") }},
}

var perClass = []struct {
	desc *prometheus.Desc
	get  func(Requests) uint64
}{
	{desc("store_requests_total", "Requests to the object store.", "cause"), func(r Requests) uint64 { return r.Requests }},
	{desc("store_errors_total", "Requests that failed.", "cause"), func(r Requests) uint64 { return r.Errors }},
	{desc("store_sent_bytes_total", "Bytes sent to the store.", "cause"), func(r Requests) uint64 { return r.Sent }},
	{desc("store_received_bytes_total", "Bytes received from the store.", "cause"), func(r Requests) uint64 { return r.Received }},
}

var perEngine = []struct {
	desc *prometheus.Desc
	get  func(Engine) uint64
}{
	{desc("store_damage_total", "Objects and parts of them that were gone from the store or failed their checksum."), func(e Engine) uint64 { return e.DamagedObjects }},
	{desc("cache_damage_total", "Clean frames that failed their checksum and were dropped."), func(e Engine) uint64 { return e.DamagedFrames }},
	{desc("cache_hits_total", "Look-ups the clean cache answered."), func(e Engine) uint64 { return e.CacheHits }},
	{desc("cache_misses_total", "Look-ups it did not."), func(e Engine) uint64 { return e.CacheMisses }},
	{desc("batches_total", "Batches uploaded."), func(e Engine) uint64 { return e.Batches }},
	{desc("merges_total", "Steps of compaction."), func(e Engine) uint64 { return e.Merges }},
	{desc("ublk_inline_total", "Requests to block devices that the rings' threads served."), func(e Engine) uint64 { return e.Ublk.Inline }},
	{desc("ublk_deferred_total", "Those that goroutines served: cold reads, full log, flushes, discards."), func(e Engine) uint64 { return e.Ublk.Deferred }},
	{desc("ublk_retried_total", "Those that were copied after an operation on a ring failed."), func(e Engine) uint64 { return e.Ublk.Slow }},
	{desc("ublk_buffer_waits_total", "Those that waited for a buffer."), func(e Engine) uint64 { return e.Ublk.BufferWait }},
	{desc("ublk_zero_copy_bytes_total", "Bytes that the kernel moved between users of block devices and files."), func(e Engine) uint64 { return e.Ublk.ZeroCopied }},
	{desc("ublk_copied_bytes_total", "Bytes of block devices that were copied through the daemon."), func(e Engine) uint64 { return e.Ublk.Copied }},
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range perDisk {
		ch <- m.desc
	}
	for _, m := range perHost {
		ch <- m.desc
	}
	for _, m := range perClass {
		ch <- m.desc
	}
	for _, m := range perEngine {
		ch <- m.desc
	}
	ch <- requestSize
	for _, m := range perStep {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	disks := c.s.Disks()
	for _, d := range disks {
		for _, m := range perDisk {
			ch <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, m.get(d), d.Name)
		}
	}
	if len(disks) > 0 {
		for _, m := range perHost {
			ch <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, m.get(disks[0].Host))
		}
	}
	engine := c.s.Engine()
	for _, m := range perEngine {
		ch <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, float64(m.get(engine)))
	}
	for disk, sizes := range engine.Sizes {
		collectSizes(ch, disk, &sizes)
	}
	for _, step := range engine.Ublk.Steps {
		for _, m := range perStep {
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.get(step), step.Name)
		}
	}
	for _, r := range c.s.Requests() {
		for _, m := range perClass {
			ch <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, float64(m.get(r)), r.Class)
		}
	}
}
