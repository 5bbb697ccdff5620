// Package s3 is an object store in an S3 bucket, through minio-go (which only this package imports).
//
// One call is one request. minio-go's own retries are off: one that repeats a conditional PUT after a lost answer meets
// its own effect and reports a loss. Objects go up in one PUT whatever their size, never as a multipart upload, so that
// object and condition are decided at once. What an error means is decided in one place, errors.go.
//
// # Time limits
//
// A request has no fixed limit: 32 MiB over a slow uplink may rightly take minutes. It ends when nothing has moved for
// stallAfter: no byte of a body taken or given, no answer. Connecting has a shorter limit of its own.
//
// # Integrity
//
// A PUT is signed together with the SHA-256 of its body, which every server that checks signatures checks as well: what
// was damaged on the way is refused rather than found at the next read. A GET's length is checked; its content is
// the caller's to verify, since packs and manifests carry checksums of their own.
package s3

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"glidefs-appliance/backend/store"
)

// minio-go sleeps up to this unit after the last attempt too, when there is nothing more to try.
func init() { minio.DefaultRetryUnit = 0 }

// Store is a store.Store in a bucket.
type Store struct {
	config Config
	client *minio.Core
	dates  *dates
	stall  time.Duration
}

// Open returns the store that c names. It sends nothing: a store that is down, missing or closed to us shows at the first
// request.
func Open(c Config) (*Store, error) {
	transport := newTransport()
	client, err := minio.NewCore(c.host(), &minio.Options{
		Creds:        c.credentials(),
		Secure:       c.secure(),
		Transport:    transport,
		Region:       c.region(),
		BucketLookup: c.lookup(),
		MaxRetries:   1,
	})
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", c, err)
	}
	client.SetAppInfo("glidefs-appliance", "1")
	return &Store{config: c, client: client, dates: transport, stall: stallAfter}, nil
}

// URL is the canonical form of the URL it was opened with.
func (s *Store) URL() string { return s.config.String() }

// name is the object's name in the bucket.
func (s *Store) name(key string) string { return s.config.Prefix + key }

// key is the inverse of name.
func (s *Store) key(name string) string { return strings.TrimPrefix(name, s.config.Prefix) }

// Now is the Date of an answer, to the second. The request lists nothing: unlike to a HEAD, a refusal of it says why.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	dated, date := s.dates.want(ctx)
	if _, err := s.page(dated, "now/", "now/now"); err != nil {
		return time.Time{}, err
	}
	now, err := http.ParseTime(*date)
	if err != nil {
		return time.Time{}, fmt.Errorf("s3: now: %w: the answer has no date: %w", store.ErrUnsuitable, err)
	}
	return now, nil
}
