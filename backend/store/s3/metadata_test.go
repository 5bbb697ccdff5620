package s3

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/storetest"
)

// metadata is the service of an instance (IMDSv2) whose role has the keys of a server. They are always just about to
// expire, so that each request asks for new ones.
type metadata struct {
	*httptest.Server
	down  atomic.Bool
	asked atomic.Int32
}

func newMetadata(t *testing.T, server *storetest.S3Server) *metadata {
	t.Helper()
	m := new(metadata)
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /latest/api/token", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "a-token") })
	mux.HandleFunc("GET /latest/meta-data/iam/security-credentials/{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "a-role")
	})
	mux.HandleFunc("GET /latest/meta-data/iam/security-credentials/a-role", func(w http.ResponseWriter, r *http.Request) {
		m.asked.Add(1)
		fmt.Fprintf(w, `{"Code": "Success", "AccessKeyId": %q, "SecretAccessKey": %q, "Expiration": %q}`,
			server.AccessKey, server.SecretKey, time.Now().UTC().Format(time.RFC3339))
	})
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case m.down.Load():
			http.Error(w, "busy", http.StatusServiceUnavailable)
		case r.Method == http.MethodGet && r.Header.Get("X-Aws-Ec2-Metadata-Token") != "a-token":
			http.Error(w, "no token", http.StatusUnauthorized)
		default:
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(m.Close)
	return m
}

// openInstance opens the server's bucket as an instance that has no other credentials does.
func openInstance(t *testing.T, server *storetest.S3Server, m *metadata) *Store {
	t.Helper()
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY", "AWS_SECRET_KEY",
		"AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", t.TempDir())
	c, err := ParseURL(server.URL + "&credentials=instance")
	if err != nil {
		t.Fatal(err)
	}
	c.metadata = m.URL
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestInstanceMetadata(t *testing.T) {
	server := storetest.StartVersitygw(t)
	m := newMetadata(t, server)
	s := openInstance(t, server, m)
	if err := store.Probe(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if m.asked.Load() == 0 {
		t.Error("nobody asked for the role's credentials")
	}
}

// TestRenewalFails: a metadata service that is busy when the credentials expire is a store that can't be reached just now, not one
// that denies access: a guest's read is tried again rather than failed.
func TestRenewalFails(t *testing.T) {
	server := storetest.StartVersitygw(t)
	m := newMetadata(t, server)
	s := openInstance(t, server, m)
	if _, err := s.Put(t.Context(), "a/b", []byte("x"), store.Condition{}); err != nil {
		t.Fatal(err)
	}
	m.down.Store(true)
	_, _, err := s.Get(t.Context(), "a/b", store.Range{})
	wantKind(t, err, store.ErrUnavailable)
	if want := "the credentials can't be renewed: instance metadata: 503 Service Unavailable"; !strings.Contains(err.Error(), want) {
		t.Errorf("message: %v\nwant %s", err, want)
	}
	wantKind(t, s.Delete(t.Context(), "a/b"), store.ErrUnavailable)
	m.down.Store(false)
	if _, _, err := s.Get(t.Context(), "a/b", store.Range{}); err != nil {
		t.Errorf("the service is back: %v", err)
	}
}

// TestNoInstanceMetadata: whoever never had credentials is told so, and what the service said.
func TestNoInstanceMetadata(t *testing.T) {
	server := storetest.StartVersitygw(t)
	m := newMetadata(t, server)
	m.down.Store(true)
	err := store.Probe(t.Context(), openInstance(t, server, m))
	wantKind(t, err, store.ErrDenied)
	for _, want := range []string{"no credentials: set AWS_ACCESS_KEY_ID", "instance metadata: 503 Service Unavailable"} {
		if err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("message: %v\nwant %s", err, want)
		}
	}
}
