package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/ublk"
)

var requestSize = desc("disk_request_size_bytes", "Requests of a disk's users by size; clear: discards and writes of zeros.", "disk", "op")

// collectSizes exports the histograms of the kinds of requests that a disk has seen.
func collectSizes(ch chan<- prometheus.Metric, disk string, sizes *frontends.SizeCounts) {
	for op, s := range sizes {
		var sum uint64
		below := map[float64]uint64{}
		for b, n := range s.Count {
			sum += n
			if b < frontends.SizeBuckets-1 {
				below[float64(frontends.BucketLimit(b))] = sum
			}
		}
		if sum > 0 {
			ch <- prometheus.MustNewConstHistogram(requestSize, sum, float64(s.Bytes), below, disk, frontends.Op(op).String())
		}
	}
}

// One step of making a block device is one value of the label step.
var perStep = []struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	get  func(ublk.Step) float64
}{
	{desc("ublk_steps_total", "Steps of making block devices and of taking them back.", "step"), prometheus.CounterValue,
		func(s ublk.Step) float64 { return float64(s.Count) }},
	{desc("ublk_steps_seconds_total", "Time they took.", "step"), prometheus.CounterValue,
		func(s ublk.Step) float64 { return s.Total.Seconds() }},
	{desc("ublk_step_seconds_max", "The slowest since the daemon was started.", "step"), prometheus.GaugeValue,
		func(s ublk.Step) float64 { return s.Most.Seconds() }},
}
