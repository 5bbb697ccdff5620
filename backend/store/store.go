// Package store is the engine's object store: immutable objects, whole-object PUT with a condition, ranged GET, list.
//
//	Stack   Retry      sends again what may be sent again; a request that waits between attempts holds no slot
//	        Gateway    bounded concurrency, priorities, bandwidth limits, counters by cause
//	        Breaker    fails at once while the store is down
//	        Bound      gives a request that hangs an end
//	        s3 | dir | mem
//
// Implementations are packages of their own; package open chooses one by URL. Every one of them and every decorator
// runs the contract suite of package storetest, which also has the Store that fails by script. Probe asks a store that
// nobody knows yet whether it keeps the contract.
//
// # What became of a PUT
//
//	nil              applied
//	ErrPrecondition  not applied: the condition did not hold when the store looked
//	ErrUnavailable   not applied, and will not be
//	ErrAmbiguous     not known; it may even be applied later. Whoever sent a condition reads back and compares the body
//	others           not applied
//
// A conditional PUT is one request: nothing below its caller sends it twice, since the second would meet the effect of the
// first and report a loss.
//
// # Locks
//
// All are leaves and none is held across a request or a callback, but for Breaker.events, which orders the calls of
// OnHealth:
//
//	Breaker.events
//	  Breaker.mu
//	slots.mu
package store

import (
	"context"
	"errors"
	"iter"
	"time"
)

var (
	ErrNotFound = errors.New("object not found")
	// ErrPrecondition: the condition of a PUT did not hold (S3: 412, also 404 for If-Match, settled 409).
	ErrPrecondition = errors.New("precondition failed")
	// ErrAmbiguous: the request may or may not have been applied (answer lost). Only a PUT or DELETE returns it.
	ErrAmbiguous = errors.New("outcome unknown")
	// ErrUnavailable: the store did not answer or said try later (5xx, throttling, timeouts, breaker open). Retryable.
	// A PUT or DELETE that returns it was not applied and will not be.
	ErrUnavailable = errors.New("store unavailable")
	// ErrDenied: credentials missing or refused.
	ErrDenied = errors.New("access denied")
	// ErrNoBucket: the bucket or the root directory does not exist.
	ErrNoBucket = errors.New("no such bucket")
	// ErrUnsuitable: the store lacks something the design relies on (the probe says what).
	ErrUnsuitable = errors.New("store unsuitable")
	// ErrBadKey: the key breaks the rules of CheckKey, or is a folder of another key (or another is of it).
	ErrBadKey = errors.New("invalid object key")
	// ErrRange: the range asked for is not wholly inside the object.
	ErrRange = errors.New("range outside the object")
)

// Retryable tells whether the same request may be sent again: ErrUnavailable, ErrAmbiguous (for a request that is
// idempotent or settled by the caller), never ErrPrecondition, ErrNotFound, ErrDenied.
func Retryable(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrAmbiguous)
}

// Info describes one stored object. ETag is opaque: equal ETags of one key mean equal bodies. It is empty only where a
// store cannot tell it cheaply (dir, see there), and never after a PUT or a whole GET.
type Info struct {
	Key      string
	Size     int64
	ETag     string
	Modified time.Time // by the store's own clock
}

// Condition of a PUT: at most one field is set; the zero value is unconditional.
type Condition struct {
	IfAbsent bool
	IfMatch  string // ETag
}

// Store holds objects under keys of the form a/b/c (no key is a folder of another). Methods are safe for concurrent use
// and may block until ctx ends. A context carries the class of the request (see With) and its part of the bandwidth, to
// which Get and Put keep by moving bodies through Paced or InPieces.
type Store interface {
	// Get returns exactly the bytes asked for, or an error; a short body is ErrUnavailable. The slice is the caller's.
	Get(ctx context.Context, key string, r Range) ([]byte, Info, error)
	// Put writes body atomically: readers see the old object or the new one, whole. body is not kept, and after ctx has
	// ended nothing read from it is made visible any more. One request, no retry inside: a lost answer is ErrAmbiguous.
	Put(ctx context.Context, key string, body []byte, c Condition) (Info, error)
	// Delete removes an object; a missing one is no error.
	Delete(ctx context.Context, key string) error
	// List yields the objects under prefix in key order, those after the key `after` only.
	List(ctx context.Context, prefix, after string) iter.Seq2[Info, error]
	// Now is the time by the store's own clock; at most one request.
	Now(ctx context.Context) (time.Time, error)
	// URL names the store for messages; it holds no secret.
	URL() string
}

// Class is the priority and the cause of a request, highest first.
type Class uint8

const (
	Guest      Class = iota // a guest waits for it
	Manifest                // attach, detach, the manifest PUT of a batch
	Upload                  // packs of a batch
	Prefetch                // readahead
	Compaction              //
	GC                      //
	Admin                   // ls, verify, rm, probe
	NumClasses
)

func (c Class) String() string {
	return [...]string{"guest", "manifest", "upload", "prefetch", "compaction", "gc", "admin"}[c]
}

type classKey struct{}

// With returns a context whose requests are of class c.
func With(ctx context.Context, c Class) context.Context { return context.WithValue(ctx, classKey{}, c) }

// ClassOf returns the class With set; Admin if none.
func ClassOf(ctx context.Context) Class {
	if c, ok := ctx.Value(classKey{}).(Class); ok {
		return c
	}
	return Admin
}
