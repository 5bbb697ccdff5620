package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"

	"github.com/minio/minio-go/v7"

	"glidefs-appliance/backend/store"
)

func (s *Store) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	if err := errors.Join(ctx.Err(), store.CheckKey(key)); err != nil {
		return store.Info{}, s.describe("put", key, err)
	}
	a := s.begin(ctx)
	defer a.end()
	dated, date := s.dates.want(a.ctx)
	sum := sha256.Sum256(body)
	up, err := s.client.PutObject(dated, s.config.Bucket, s.name(key), a.moving(bytes.NewReader(body)), int64(len(body)),
		"", hex.EncodeToString(sum[:]), putOptions(c))
	switch {
	case err == nil && up.ETag == "": // whoever answered, it need not be the store
		return store.Info{}, s.describe("put", key, fmt.Errorf("%w: %w: the answer has no ETag", store.ErrAmbiguous, store.ErrUnsuitable))
	case err == nil:
		in := store.Info{Key: key, Size: int64(len(body)), ETag: up.ETag}
		in.Modified, _ = http.ParseTime(*date) // zero if the answer has none; the condition rests on the ETag
		return in, nil
	case c.IfMatch != "" && isNoKey(err):
		return store.Info{}, s.describe("put", key, fmt.Errorf("%w: there is no such object", store.ErrPrecondition))
	}
	return store.Info{}, s.failWrite(a, "put", key, int64(len(body)), err)
}

func isNoKey(err error) bool {
	e := minio.ToErrorResponse(err)
	return e.Code == "NoSuchKey" && said(e)
}

// putOptions: DisableContentSha256 is the name of the switch that lets the SHA-256 we pass be signed, instead of a stream
// of signed chunks.
func putOptions(c store.Condition) (o minio.PutObjectOptions) {
	o.ContentType = "application/octet-stream"
	o.DisableMultipart = true
	o.DisableContentSha256 = true
	if c.IfAbsent {
		o.SetMatchETagExcept("*")
	}
	if c.IfMatch != "" {
		o.SetMatchETag(c.IfMatch)
	}
	return o
}

func (s *Store) Delete(ctx context.Context, key string) error {
	if err := errors.Join(ctx.Err(), store.CheckKey(key)); err != nil {
		return s.describe("delete", key, err)
	}
	a := s.begin(ctx)
	defer a.end()
	err := s.client.RemoveObject(a.ctx, s.config.Bucket, s.name(key), minio.RemoveObjectOptions{})
	if err == nil || isNoKey(err) {
		return nil
	}
	return s.failWrite(a, "delete", key, 0, err)
}
