package server

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/config"
	"glidefs-appliance/appliance/exports"
	"glidefs-appliance/appliance/metrics"
	"glidefs-appliance/appliance/statedir"
	"glidefs-appliance/backend/cache"
	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/vfs"
	"glidefs-appliance/backend/volume"
	"glidefs-appliance/backend/wlog"
)

// serve starts a server over an engine with a store in memory, without FUSE: nothing is attached here.
func serve(t testing.TB, ending *bool) *httptest.Server {
	t.Helper()
	state, err := statedir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	clean, err := cache.Open(cache.Options{FS: vfs.OS(), Dir: t.TempDir(), Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { clean.Close() })
	st := mem.New()
	m := exports.New(exports.Options{
		Life: t.Context(),
		Host: &volume.Host{
			FS: vfs.OS(), Logs: state.Logs(), Owner: manifest.Owner{State: state.ID, Host: "here"}, Store: st, Cache: clean,
			Pages: manifest.NewPages(st, 4), Budget: wlog.NewBudget(64 << 20), Log: slog.New(slog.DiscardHandler),
		},
		State: state, Log: slog.New(slog.DiscardHandler),
		Health: func() exports.Health { return exports.Health{Text: store.HealthOK} },
		Usage:  func() api.Host { return api.Host{LogLimit: 64 << 20} },

		Program: config.Name, SyncTimeout: time.Minute,
	})
	counters := metrics.Handler(metrics.Sources{Disks: m.Status, Requests: func() []metrics.Requests {
		return []metrics.Requests{{Class: "guest", Requests: 7}}
	}, Engine: func() metrics.Engine {
		return metrics.Engine{DamagedObjects: 3}
	}})
	s := httptest.NewServer(New(m, api.Daemon{Version: "test", PID: 1}, counters, func() bool { return *ending }))
	t.Cleanup(s.Close)
	return s
}

func ask(t testing.TB, method, url, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestAnswers(t *testing.T) {
	s := serve(t, new(bool))
	for _, tc := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/v1/daemon", "", 200, `"version":"test"`},
		{"GET", "/v1/disks", "", 200, `[]`},
		{"GET", "/v1/volumes", "", 200, `[]`},
		{"POST", "/v1/gc", `{"dry_run":true}`, 200, `"deleted_objects":0`},
		{"POST", "/v1/gc", `{"grace_ns":-1}`, 400, `"invalid"`},
		{"POST", "/v1/disks/none/attach", `{}`, 404, `"not-found"`},
		{"POST", "/v1/disks/None/attach", `{}`, 400, `"invalid"`},
		{"POST", "/v1/disks/d/attach", `{"size":1}`, 400, `"invalid"`},
		{"POST", "/v1/disks/d/attach", `{"frontend":"ublk-zc","create":true}`, 409, `"refused"`},
		{"POST", "/v1/disks/none/detach", `{}`, 404, `"not-found"`},
		{"POST", "/v1/disks/none/sync", `{}`, 200, `{"error":{"code":"not-found"`},
		{"POST", "/v1/disks/none/verify", `{}`, 200, `{"error":{"code":"not-found"`},
		{"POST", "/v1/disks/none/resize", `{"size":1048576}`, 404, `"not-found"`},
		{"POST", "/v1/disks/none/sync", ``, 200, `{"error":{"code":"not-found"`},
		{"POST", "/v1/disks/none/verify", `{"deep":true}`, 400, `unknown field`},
		{"POST", "/v1/disks/none/salvage", `{"as":"new"}`, 200, `{"error":{"code":"not-found"`},
		{"POST", "/v1/disks/none/abandon", `{"dry":true}`, 404, `"not-found"`},
		{"DELETE", "/v1/volumes/none", "", 404, `"not-found"`},
		{"GET", "/metrics", "", 200, `glidefs_store_requests_total{cause="guest"} 7`},
		{"GET", "/v2/daemon", "", 404, ""},
		{"DELETE", "/v1/daemon", "", 405, ""},
		// Bodies that are not what they should be.
		{"POST", "/v1/disks/d/attach", ``, 400, "request body"},
		{"POST", "/v1/disks/d/attach", `{"sise":1}`, 400, "unknown field"},
		{"POST", "/v1/disks/d/attach", `{} {}`, 400, "more than one"},
		{"POST", "/v1/disks/d/attach", `{"size":"1G"}`, 400, "request body"},
		{"POST", "/v1/disks/d/attach", `{"frontend":"` + strings.Repeat("x", api.MaxBody) + `"}`, 400, "too large"},
	} {
		status, answer := ask(t, tc.method, s.URL+tc.path, tc.body)
		if status != tc.status || !strings.Contains(answer, tc.want) {
			t.Errorf("%s %s %.40s: %d %s, want %d %s", tc.method, tc.path, tc.body, status, answer, tc.status, tc.want)
		}
	}
}

func TestEnding(t *testing.T) {
	ending := true
	s := serve(t, &ending)
	if status, answer := ask(t, "GET", s.URL+"/v1/daemon", ""); status != 503 || !strings.Contains(answer, `"ending"`) {
		t.Errorf("%d %s", status, answer)
	}
}

// No body breaks the daemon.
func FuzzAttachBody(f *testing.F) {
	s := serve(f, new(bool))
	for _, b := range []string{`{}`, `{"size":-1}`, `{"size":1e300}`, `[`, `{"frontend":"fuse","read_only":true}`, "\x00"} {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.Contains(bytes.ToLower(b), []byte("create")) {
			return // what is made would have to be mounted
		}
		resp, err := http.Post(s.URL+"/v1/disks/d/attach", "application/json", bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var e api.Error
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || e.Message == "" {
			t.Fatalf("%q: %s, %v", b, resp.Status, err)
		}
	})
}
