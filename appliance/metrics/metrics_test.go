package metrics

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/frontends"
	"glidefs-appliance/frontends/ublk"
)

// TestScrape: everything that is counted comes out, under its name.
func TestScrape(t *testing.T) {
	var sizes frontends.Sizes
	sizes.Count(frontends.OpWrite, 4096)
	sizes.Count(frontends.OpWrite, 100<<10)
	sizes.Count(frontends.OpClear, 1<<30)
	var counts frontends.SizeCounts
	counts.Add(&sizes)
	h := Handler(Sources{
		Disks: func() []api.Disk {
			return []api.Disk{{Name: "d", Attached: true, State: "ok", DirtyBytes: 5, Host: api.Host{LogUsed: 6, StoreHealth: "ok"}}}
		},
		Requests: func() []Requests { return []Requests{{Class: "upload", Requests: 7, Sent: 8}} },
		Engine: func() Engine {
			return Engine{
				CacheHits: 9, Sizes: map[string]frontends.SizeCounts{"d": counts},
				Ublk: ublk.Stats{
					Inline: 11, Deferred: 12, Slow: 13, BufferWait: 14, ZeroCopied: 15, Copied: 16,
					Steps: []ublk.Step{{Name: "start", Count: 2, Total: 3 * time.Second, Most: 2 * time.Second}},
				},
			}
		},
	})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text := "\n" + w.Body.String()
	for _, want := range []string{
		`glidefs_disk_up{disk="d"} 1`, `glidefs_disk_dirty_bytes{disk="d"} 5`, `glidefs_log_used_bytes 6`, `glidefs_store_up 1`,
		`glidefs_store_requests_total{cause="upload"} 7`, `glidefs_store_sent_bytes_total{cause="upload"} 8`, `glidefs_cache_hits_total 9`,
		`glidefs_ublk_inline_total 11`, `glidefs_ublk_deferred_total 12`, `glidefs_ublk_retried_total 13`,
		`glidefs_ublk_buffer_waits_total 14`, `glidefs_ublk_zero_copy_bytes_total 15`, `glidefs_ublk_copied_bytes_total 16`,
		`glidefs_ublk_steps_total{step="start"} 2`, `glidefs_ublk_steps_seconds_total{step="start"} 3`,
		`glidefs_ublk_step_seconds_max{step="start"} 2`,
		`glidefs_disk_request_size_bytes_bucket{disk="d",op="write",le="4096"} 1`,
		`glidefs_disk_request_size_bytes_bucket{disk="d",op="write",le="65536"} 1`,
		`glidefs_disk_request_size_bytes_bucket{disk="d",op="write",le="131072"} 2`,
		`glidefs_disk_request_size_bytes_bucket{disk="d",op="write",le="+Inf"} 2`,
		`glidefs_disk_request_size_bytes_sum{disk="d",op="write"} 106496`,
		`glidefs_disk_request_size_bytes_bucket{disk="d",op="clear",le="1.048576e+06"} 0`,
		`glidefs_disk_request_size_bytes_count{disk="d",op="clear"} 1`,
		"go_goroutines ",
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("no line %s", want)
		}
	}
	if strings.Contains(text, `op="read"`) {
		t.Error("a histogram of requests that nobody made")
	}
	if t.Failed() {
		t.Log(text)
	}
}
