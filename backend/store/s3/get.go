package s3

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"

	"glidefs-appliance/backend/store"
)

func (s *Store) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	if err := store.CheckKey(key); err != nil {
		return nil, store.Info{}, s.describe("get", key, err)
	}
	a := s.begin(ctx)
	defer a.end()
	stream, object, header, err := s.client.GetObject(a.ctx, s.config.Bucket, s.name(key), getOptions(r))
	if err != nil {
		return nil, store.Info{}, s.fail(a, "get", key, err)
	}
	defer stream.Close()
	size, err := objectSize(r, object.Size, header)
	if err != nil {
		return nil, store.Info{}, s.describe("get", key, err)
	}
	body := make([]byte, object.Size)
	if n, err := io.ReadFull(a.moving(stream), body); err != nil {
		short := fmt.Errorf("the body ended after %d of %d bytes: %w", n, len(body), err)
		return nil, store.Info{}, s.fail(a, "get", key, short)
	}
	return body, store.Info{Key: key, Size: size, ETag: object.ETag, Modified: object.LastModified}, nil
}

func getOptions(r store.Range) (o minio.GetObjectOptions) {
	switch {
	case r.Whole():
	case r.Off < 0:
		o.Set("Range", fmt.Sprintf("bytes=%d", r.Off))
	case r.Len == 0:
		o.Set("Range", fmt.Sprintf("bytes=%d-", r.Off))
	default:
		o.Set("Range", fmt.Sprintf("bytes=%d-%d", r.Off, r.Off+r.Len-1))
	}
	return o
}

// maxBody bounds what is allocated on a server's word; objects of ours are at most 64 MiB.
const maxBody = 1 << 30

// objectSize checks that the answer, whose body has length bytes, is what r asked for, and returns the object's size.
func objectSize(r store.Range, length int64, header http.Header) (int64, error) {
	if length < 0 || length > maxBody {
		return 0, fmt.Errorf("%w: the answer has a body of %d bytes", store.ErrUnavailable, length)
	}
	if r.Whole() {
		return length, nil
	}
	first, size, ok := contentRange(header.Get("Content-Range"))
	if !ok {
		return 0, fmt.Errorf("%w: the store ignores Range: it answered %s with all %d bytes", store.ErrUnsuitable, r, length)
	}
	off, n, err := r.Resolve(size)
	if err != nil {
		return 0, err
	}
	if off != first || n != length {
		return 0, fmt.Errorf("%w: asked for %s, the answer is %d bytes from %d of %d", store.ErrUnsuitable, r, length, first, size)
	}
	return size, nil
}

// contentRange takes "bytes 5-9/100" apart.
func contentRange(header string) (first, size int64, ok bool) {
	span, total, ok := strings.Cut(strings.TrimPrefix(header, "bytes "), "/")
	if !ok {
		return 0, 0, false
	}
	from, _, ok := strings.Cut(span, "-")
	first, err1 := strconv.ParseInt(from, 10, 64)
	size, err2 := strconv.ParseInt(total, 10, 64)
	return first, size, ok && err1 == nil && err2 == nil
}
