package s3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/storetest"
)

// proxy stands between the client and versitygw and spoils answers. It keeps the Host header, which is signed.
type proxy struct {
	*httptest.Server
	requests atomic.Int32
	spoil    atomic.Pointer[func(w http.ResponseWriter, r *http.Request, pass http.Handler)]
}

func newProxy(t *testing.T, server *storetest.S3Server) *proxy {
	target, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	pass := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host
	}}
	p := new(proxy)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.requests.Add(1)
		if spoil := p.spoil.Load(); spoil != nil {
			(*spoil)(w, r, pass)
			return
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *proxy) set(f func(w http.ResponseWriter, r *http.Request, pass http.Handler)) {
	p.requests.Store(0)
	p.spoil.Store(&f)
}

func (p *proxy) clear() { p.spoil.Store(nil) }

func openEndpoint(t *testing.T, bucket, endpoint string) *Store {
	t.Helper()
	c, err := ParseURL("s3://" + bucket + "?region=us-east-1&endpoint=" + endpoint)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func hangUp(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.Close()
	}
}

func TestFaults(t *testing.T) {
	server := storetest.StartVersitygw(t)
	p := newProxy(t, server)
	s := openEndpoint(t, server.Bucket, p.URL)
	absent := store.Condition{IfAbsent: true}
	body := storetest.Random(1, 1<<20)

	t.Run("the answer to a PUT is lost", func(t *testing.T) {
		p.set(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			pass.ServeHTTP(httptest.NewRecorder(), r)
			hangUp(w)
		})
		_, err := s.Put(t.Context(), "lost/one", body, absent)
		wantKind(t, err, store.ErrAmbiguous)
		if errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrPrecondition) {
			t.Errorf("an ambiguous error is another kind too: %v", err)
		}
		if n := p.requests.Load(); n != 1 {
			t.Errorf("one PUT became %d requests", n)
		}
		p.clear()
		if got, _, err := s.Get(t.Context(), "lost/one", store.Range{}); err != nil || len(got) != len(body) {
			t.Errorf("the PUT was not applied: %v", err)
		}
	})
	t.Run("a large body is one request", func(t *testing.T) {
		p.set(func(w http.ResponseWriter, r *http.Request, pass http.Handler) { pass.ServeHTTP(w, r) })
		_, err := s.Put(t.Context(), "large/one", storetest.Random(3, 40<<20), absent)
		if n := p.requests.Load(); err != nil || n != 1 {
			t.Errorf("%d requests, %v", n, err)
		}
		p.clear()
	})
	t.Run("a PUT is cut in the middle", func(t *testing.T) {
		p.set(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			io.CopyN(io.Discard, r.Body, 1000)
			hangUp(w)
		})
		_, err := s.Put(t.Context(), "cut/one", storetest.Random(2, 64<<20), absent)
		wantKind(t, err, store.ErrUnavailable)
		if errors.Is(err, store.ErrAmbiguous) {
			t.Errorf("no server applies half a body: %v", err)
		}
		p.clear()
	})
	t.Run("a PUT is damaged on the way", func(t *testing.T) {
		p.set(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			sent, _ := io.ReadAll(r.Body) // short, it is refused as well
			sent[len(sent)/2] ^= 1
			r.Body = io.NopCloser(bytes.NewReader(sent))
			pass.ServeHTTP(w, r)
		})
		_, err := s.Put(t.Context(), "damaged/one", body, absent)
		wantKind(t, err, store.ErrUnavailable)
		p.clear()
		_, _, err = s.Get(t.Context(), "damaged/one", store.Range{})
		wantKind(t, err, store.ErrNotFound)
	})
	t.Run("answers of a server in trouble", func(t *testing.T) {
		for status, kind := range map[int]error{
			503: store.ErrUnavailable, 429: store.ErrUnavailable, 408: store.ErrUnavailable,
			500: store.ErrAmbiguous, 502: store.ErrAmbiguous, 504: store.ErrAmbiguous, 521: store.ErrAmbiguous,
			501: store.ErrUnsuitable, 403: store.ErrDenied, 412: store.ErrPrecondition,
		} {
			p.set(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				io.Copy(io.Discard, r.Body)
				w.WriteHeader(status)
			})
			_, err := s.Put(t.Context(), "trouble/one", []byte("x"), absent)
			wantKind(t, err, kind)
			if kind == store.ErrAmbiguous {
				_, _, err := s.Get(t.Context(), "trouble/one", store.Range{})
				wantKind(t, err, store.ErrUnavailable)
				wantKind(t, s.Delete(t.Context(), "trouble/one"), store.ErrAmbiguous)
				if n := p.requests.Load(); n != 3 {
					t.Errorf("PUT, GET and DELETE became %d requests", n)
				}
			}
		}
		p.clear()
	})
	t.Run("a conflict asks for another try", func(t *testing.T) {
		p.set(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusConflict)
			io.WriteString(w, "<Error><Code>ConditionalRequestConflict</Code><Message>m</Message></Error>")
		})
		_, err := s.Put(t.Context(), "conflict/one", []byte("x"), absent)
		wantKind(t, err, store.ErrUnavailable)
		p.clear()
	})
	t.Run("somebody else answers 404", func(t *testing.T) {
		in, err := s.Put(t.Context(), "there/one", []byte("x"), store.Condition{})
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range []string{"", "404 page not found", "<html><body>nginx</body></html>"} {
			p.set(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				io.Copy(io.Discard, r.Body)
				w.WriteHeader(http.StatusNotFound)
				io.WriteString(w, page)
			})
			_, _, err = s.Get(t.Context(), "there/one", store.Range{})
			wantKind(t, err, store.ErrUnavailable)
			_, err = s.Put(t.Context(), "there/one", []byte("y"), store.Condition{IfMatch: in.ETag})
			wantKind(t, err, store.ErrUnavailable)
			wantKind(t, s.Delete(t.Context(), "there/one"), store.ErrUnavailable)
			_, err = storetest.Keys(t.Context(), s, "", "")
			wantKind(t, err, store.ErrUnavailable)
		}
		p.clear()
		if _, _, err := s.Get(t.Context(), "there/one", store.Range{}); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
	t.Run("somebody else answers 200", func(t *testing.T) {
		p.set(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, "<html><body>Welcome to our WiFi</body></html>")
		})
		for _, c := range []store.Condition{{}, absent} {
			_, err := s.Put(t.Context(), "there/two", []byte("x"), c)
			wantKind(t, err, store.ErrAmbiguous)
			wantKind(t, err, store.ErrUnsuitable)
		}
		p.clear()
	})
	t.Run("the clocks differ", func(t *testing.T) {
		p.set(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, "<Error><Code>RequestTimeTooSkewed</Code><Message>too far apart</Message></Error>")
		})
		_, _, err := s.Get(t.Context(), "skewed/one", store.Range{})
		wantKind(t, err, store.ErrDenied)
		if err != nil && !strings.Contains(err.Error(), "too far apart (is this host's clock right? it is 2") {
			t.Errorf("message: %v", err)
		}
		p.clear()
	})
	t.Run("a body is short", func(t *testing.T) {
		p.clear()
		if _, err := s.Put(t.Context(), "short/one", body, absent); err != nil {
			t.Fatal(err)
		}
		p.set(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			rec := httptest.NewRecorder()
			pass.ServeHTTP(rec, r)
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(rec.Code)
			w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
		})
		for _, r := range []store.Range{{}, {Off: 10, Len: 1000}, {Off: -1000}} {
			_, _, err := s.Get(t.Context(), "short/one", r)
			wantKind(t, err, store.ErrUnavailable)
		}
		p.clear()
	})
	t.Run("ranges are ignored", func(t *testing.T) {
		p.set(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			w.Header().Set("ETag", `"x"`)
			w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			w.Write(body)
		})
		_, _, err := s.Get(t.Context(), "short/one", store.Range{Off: 10, Len: 1000})
		wantKind(t, err, store.ErrUnsuitable)
		p.clear()
	})
	t.Run("nothing moves", func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		p.set(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			io.Copy(io.Discard, r.Body)
			<-release
		})
		s := openEndpoint(t, server.Bucket, p.URL)
		s.stall = 50 * time.Millisecond
		_, err := s.Put(t.Context(), "stall/one", []byte("x"), absent)
		wantKind(t, err, store.ErrAmbiguous)
		_, _, err = s.Get(t.Context(), "stall/one", store.Range{})
		wantKind(t, err, store.ErrUnavailable)
		for _, err := range s.List(t.Context(), "stall/", "") {
			wantKind(t, err, store.ErrUnavailable)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		s.stall = time.Hour
		for _, err := range s.List(ctx, "stall/", "") {
			wantKind(t, err, context.Canceled)
		}
		_, err = s.Put(ctx, "stall/one", []byte("x"), absent)
		wantKind(t, err, context.Canceled)
	})
	p.clear()
}

func wantKind(t *testing.T, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("error is %v, want %v", err, kind)
	}
}

// TestMessages pins what a person reads when a bucket can't be used.
func TestMessages(t *testing.T) {
	server := storetest.StartVersitygw(t)
	want := func(t *testing.T, s *Store, kind error, text string) {
		t.Helper()
		err := store.Probe(t.Context(), s)
		if !errors.Is(err, kind) || !strings.Contains(err.Error(), text) {
			t.Errorf("\n got %v\nwant %v: %s", err, kind, text)
		}
		if _, err = s.Now(t.Context()); !errors.Is(err, kind) {
			t.Errorf("now: %v, want %v", err, kind)
		}
		if _, err = storetest.Keys(t.Context(), s, "", ""); !errors.Is(err, kind) {
			t.Errorf("list: %v, want %v", err, kind)
		}
	}
	t.Run("no bucket", func(t *testing.T) {
		s := openEndpoint(t, "no-such-bucket", server.Endpoint)
		want(t, s, store.ErrNoBucket, "no such bucket: no-such-bucket at "+server.Endpoint)
		_, err := s.Put(t.Context(), "a/b", nil, store.Condition{IfMatch: "x"})
		wantKind(t, err, store.ErrNoBucket)
	})
	t.Run("wrong key", func(t *testing.T) {
		t.Setenv("AWS_ACCESS_KEY_ID", "somebody")
		want(t, openEndpoint(t, server.Bucket, server.Endpoint), store.ErrDenied, "says XAdminUserNotFound: No user exists with the provided access key ID")
	})
	t.Run("wrong secret", func(t *testing.T) {
		t.Setenv("AWS_SECRET_ACCESS_KEY", "my-wrong-secret")
		s := openEndpoint(t, server.Bucket, server.Endpoint)
		want(t, s, store.ErrDenied, "SignatureDoesNotMatch")
		if err := store.Probe(t.Context(), s); strings.Contains(err.Error(), "my-wrong-secret") {
			t.Errorf("the message shows the secret: %v", err)
		}
	})
	t.Run("no credentials", func(t *testing.T) {
		t.Setenv("AWS_ACCESS_KEY_ID", "")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "")
		t.Setenv("HOME", t.TempDir())
		want(t, openEndpoint(t, server.Bucket, server.Endpoint), store.ErrDenied,
			"no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them to ~/.aws/credentials")
	})
	t.Run("endpoint down", func(t *testing.T) {
		s := openEndpoint(t, server.Bucket, server.Endpoint)
		server.Stop()
		want(t, s, store.ErrUnavailable, "connection refused")
		_, err := s.Put(t.Context(), "a/b", nil, store.Condition{IfAbsent: true})
		if errors.Is(err, store.ErrAmbiguous) {
			t.Errorf("nothing was sent: %v", err)
		}
		server.Start(t)
		if err := store.Probe(t.Context(), s); err != nil {
			t.Errorf("the server is back: %v", err)
		}
	})
}

func TestSharedCredentialsFile(t *testing.T) {
	server := storetest.StartVersitygw(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	path := t.TempDir() + "/credentials"
	writeFile(t, path, "[default]\naws_access_key_id = "+server.AccessKey+"\naws_secret_access_key = "+server.SecretKey+"\n")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", path)
	if err := store.Probe(t.Context(), openEndpoint(t, server.Bucket, server.Endpoint)); err != nil {
		t.Fatal(err)
	}
}
