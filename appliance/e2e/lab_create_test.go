//go:build lab

package e2e

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"glidefs-appliance/backend/store/storetest"
)

// counting stands between the daemon and an S3 server and notes every request: "PUT /bucket/key".
type counting struct {
	mu   sync.Mutex
	seen []string
	hold func(*http.Request) // called before a request goes on; may wait
}

// counted is a home whose requests are counted.
func counted(t *testing.T) (home, *counting) {
	t.Helper()
	s := storetest.StartVersitygw(t)
	to, err := url.Parse(s.Endpoint)
	must(t, err)
	c := &counting{}
	// The signature covers the host's name, so that stays.
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host
	}}
	address := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.seen = append(c.seen, r.Method+" "+r.URL.Path)
		hold := c.hold
		c.mu.Unlock()
		if hold != nil {
			hold(r)
		}
		proxy.ServeHTTP(w, r)
	})
	h := bucket(s)
	h.url = fmt.Sprintf("s3://%s?endpoint=http://%s&region=us-east-1", s.Bucket, address)
	return h, c
}

// since returns what was asked, and forgets it.
func (c *counting) since() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := c.seen
	c.seen = nil
	return seen
}

// TestLabCreate: making a disk and its device on a daemon that has one already is one PUT to the object store, and
// nothing else but reads.
func TestLabCreate(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		store, c := counted(t)
		m := w.machine(t, store, `upload_age = "1h"`)
		m.attach("warm", "--size", "64M")
		c.since()
		r := m.run("attach", "new", "--size", "64M")
		m.want(r, []string{"attach"}, 0)
		seen := c.since()
		t.Logf("attach of a new disk took %s and asked %q", r.took, seen)
		writes := slices.DeleteFunc(seen, func(s string) bool { return strings.HasPrefix(s, "GET ") || strings.HasPrefix(s, "HEAD ") })
		if len(writes) != 1 || !strings.HasPrefix(writes[0], "PUT ") || !strings.HasSuffix(writes[0], "/volumes/new/manifest") {
			t.Errorf("it asked %q of the store; want one PUT of the manifest", writes)
		}
		w.check(m, "new")
		m.ok("detach", "new")
		m.ok("detach", "warm")
	})
}
