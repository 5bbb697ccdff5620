package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"glidefs-appliance/backend/store"
)

// classify gives a system error its meaning for callers. A full disk is ErrUnavailable: it goes on when space is made.
func classify(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: %w", store.ErrDenied, err)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.EEXIST):
		return fmt.Errorf("%w: %w", store.ErrBadKey, err)
	}
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

// explain is classify for an operation below the root: a root that is gone explains every other failure.
func (s *Store) explain(err error) error {
	if gone := s.check(); errors.Is(gone, store.ErrNoBucket) {
		return gone
	}
	return classify(err)
}
