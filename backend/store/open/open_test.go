package open

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/storetest"
)

// TestMessages pins what a person reads.
func TestMessages(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		url  string
		kind error
		want string
	}{
		{"gs://bucket", ErrURL, `invalid store URL: unknown scheme "gs"; a store is file:///dir or s3://bucket/prefix`},
		{"/srv/store", ErrURL, "invalid store URL: it has no scheme; a store is file:///dir or s3://bucket/prefix"},
		{"", ErrURL, "it has no scheme"},
		{"file://srv/store", ErrURL, "a directory has three slashes: file:///dir"},
		{"file:///srv/store?x=1", ErrURL, "file:///dir takes no parameters"},
		{"file://", ErrURL, "a directory is given in full: file:///dir"},
		{"file://" + missing, store.ErrNoBucket, "no such bucket: the directory " + missing + " does not exist"},
		{"file://" + file, store.ErrNoBucket, file + " is not a directory"},
		{"s3://", ErrURL, `"" is no bucket name (expected s3://bucket/prefix?endpoint=https://host&region=...)`},
		{"s3://UPPER", ErrURL, `"UPPER" is no bucket name`},
		{"s3://key:secret@bucket", ErrURL, "credentials don't belong in a URL; set AWS_ACCESS_KEY_ID"},
		{"s3://bucket?endpoint=localhost:9000", ErrURL, "the endpoint must begin with http:// or https://"},
		{"s3://bucket?endpoint=http://a:secret@h", ErrURL, "credentials don't belong in the endpoint"},
		{"s3://bucket?endpoint=http://h/path", ErrURL, "the endpoint is scheme, host and port, nothing more"},
		{"s3://bucket?regoin=x", ErrURL, `unknown parameter "regoin"; there are endpoint, region, path-style and credentials`},
		{"s3://bucket?region=a&region=b", ErrURL, "region is given 2 times"},
		{"s3://bucket/../x", ErrURL, "a part begins with a dot"},
		{"s3://bucket?credentials=secret", ErrURL, `the only value of credentials is "instance"`},
		{"mem://", ErrURL, "mem://name takes a plain name"},
	} {
		_, err := Open(c.url, Options{})
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n got %v\nwant %s", c.url, err, c.want)
		}
		if err != nil && strings.Contains(c.url, "@") && strings.Contains(err.Error(), "secret@") {
			t.Errorf("%s: the message shows the secret: %v", c.url, err)
		}
	}
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b", "store")
	for _, c := range []struct{ url, want string }{
		{"mem://" + "one", "mem://one"},
		{"file://" + path + "/", "file://" + strings.ReplaceAll(path, " ", "%20")},
		{"s3://bucket/a/b/?region=eu-west-1&endpoint=https://h:1/", "s3://bucket/a/b?endpoint=https%3A%2F%2Fh%3A1&region=eu-west-1"},
		{"s3://bucket", "s3://bucket"},
		{"s3://bucket/?path-style=true&credentials=instance", "s3://bucket?credentials=instance&path-style=true"},
	} {
		s, err := Open(c.url, Options{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		if s.URL() != c.want {
			t.Errorf("%s opens %s, want %s", c.url, s.URL(), c.want)
		}
	}
	a, _ := Open("mem://one", Options{})
	if b, _ := Open("mem://one", Options{}); a != b {
		t.Error("mem://one opened twice gave two stores")
	}
	s, err := Open("file://"+path, Options{})
	if err != nil {
		t.Fatalf("the directory was made, opening it: %v", err)
	}
	if err := store.Probe(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	s, err = Open(storetest.Versitygw(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Probe(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// FuzzURL: no input panics, and what parses is canonical: its URL opens the same store.
func FuzzURL(f *testing.F) {
	for _, seed := range []string{
		"file:///srv/store", "file:///a%20b", "file://host/x", "file:///a//b/../c", "mem://x", "s3://bucket",
		"s3://bucket/prefix/?endpoint=http://127.0.0.1:7070&region=us-east-1&path-style=true&credentials=instance",
		"s3://key:secret@bucket", "s3://b%61d", "s3://bucket?endpoint=http://[::1]:80", "s3:///", "://", "s3://bucket/a%2fb",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if strings.HasPrefix(raw, "file://") {
			if path, err := filePath(raw); err == nil && (!filepath.IsAbs(path) || filepath.Clean(path) != path) {
				t.Fatalf("%q became the path %q", raw, path)
			}
			return // opening it would touch this machine's directories
		}
		s, err := Open(raw, Options{})
		if err != nil {
			return
		}
		again, err := Open(s.URL(), Options{})
		if err != nil || again.URL() != s.URL() {
			t.Fatalf("%q opens %s, which opens %v, %v", raw, s.URL(), again, err)
		}
	})
}
