package s3

import (
	"context"
	"iter"

	"github.com/minio/minio-go/v7"

	"glidefs-appliance/backend/store"
)

// pageSize is the most that S3 lists in one answer.
const pageSize = 1000

// List reads a page, one request, before it yields the page's first key, and the next only when more is wanted.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		for {
			page, err := s.page(ctx, prefix, after)
			if err != nil {
				yield(store.Info{}, err)
				return
			}
			for _, in := range page {
				if !yield(in, nil) {
					return
				}
			}
			if len(page) < pageSize {
				return
			}
			after = page[len(page)-1].Key
		}
	}
}

func (s *Store) page(ctx context.Context, prefix, after string) ([]store.Info, error) {
	a := s.begin(ctx)
	defer a.end()
	var page []store.Info
	for o := range s.client.ListObjectsIter(a.ctx, s.config.Bucket, s.listOptions(prefix, after)) {
		if o.Err != nil {
			return nil, s.fail(a, "list", prefix, o.Err)
		}
		a.timer.Reset(a.stall)
		page = append(page, store.Info{Key: s.key(o.Key), Size: o.Size, ETag: o.ETag, Modified: o.LastModified})
		if len(page) == pageSize {
			break
		}
	}
	// The iterator ends without a word when its context does.
	if err := a.ctx.Err(); err != nil {
		return nil, s.fail(a, "list", prefix, err)
	}
	return page, nil
}

func (s *Store) listOptions(prefix, after string) minio.ListObjectsOptions {
	owner := false
	o := minio.ListObjectsOptions{Prefix: s.name(prefix), Recursive: true, MaxKeys: pageSize, FetchOwner: &owner}
	if after != "" {
		o.StartAfter = s.name(after)
	}
	return o
}
