// Package open chooses the object store that a URL names. It is the one place that knows all implementations.
//
//	file:///var/store                                      package dir
//	s3://bucket/prefix?endpoint=https://host&region=...    package s3
//	mem://name                                             package mem: one per name and process, for tests
package open

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/dir"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/s3"
)

// Options of Open.
type Options struct {
	// Create makes the directory of a file:// store if it is missing; else that is store.ErrNoBucket.
	Create bool
	// Known is for a store that has been written to: a directory that is missing, or is another, is no mistake in the URL
	// then but a file system that is not mounted. Open succeeds, and every request is store.ErrUnavailable until it is back.
	Known bool
}

// ErrURL: the URL names no store, whatever is or isn't there.
var ErrURL = errors.New("invalid store URL")

// Open returns the store that raw names, without decorators. It sends no request, so a store that can't be reached opens
// all the same; store.Probe finds out. Errors never quote what might be a secret.
func Open(raw string, o Options) (store.Store, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return nil, fmt.Errorf("%w: it has no scheme; a store is file:///dir or s3://bucket/prefix", ErrURL)
	}
	switch scheme {
	case "file":
		return openDir(raw, o)
	case "s3":
		return openS3(raw)
	case "mem":
		return openMem(rest)
	}
	return nil, fmt.Errorf("%w: unknown scheme %q; a store is file:///dir or s3://bucket/prefix", ErrURL, scheme)
}

func openDir(raw string, o Options) (store.Store, error) {
	path, err := filePath(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrURL, err)
	}
	if o.Known {
		s, err := dir.OpenKnown(path)
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	s, err := dir.Open(path, o.Create)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// filePath takes file:///dir apart.
func filePath(raw string) (string, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return "", errors.New("it can't be parsed")
	case u.Host != "" || u.User != nil:
		return "", errors.New("a directory has three slashes: file:///dir")
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return "", errors.New("file:///dir takes no parameters; write ? as %3F and # as %23")
	case !filepath.IsAbs(u.Path) || strings.ContainsRune(u.Path, 0):
		return "", errors.New("a directory is given in full: file:///dir")
	}
	return filepath.Clean(u.Path), nil
}

func openS3(raw string) (store.Store, error) {
	c, err := s3.ParseURL(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrURL, err)
	}
	s, err := s3.Open(c)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func openMem(name string) (store.Store, error) {
	if err := store.CheckKey(name); err != nil || strings.Contains(name, "/") {
		return nil, fmt.Errorf("%w: mem://name takes a plain name", ErrURL)
	}
	return mem.Open(name), nil
}
