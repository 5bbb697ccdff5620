package s3

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"

	"glidefs-appliance/backend/store"
)

// fail says what err means for the caller of a GET, LIST or Now.
func (s *Store) fail(a *attempt, op, key string, err error) error {
	return s.describe(op, key, s.meaning(a, err))
}

// failWrite does so for a PUT or DELETE, of which it must also be known whether it may have been applied. size is that of
// the body: a server that has not got all of it applied nothing.
func (s *Store) failWrite(a *attempt, op, key string, size int64, err error) error {
	meaning := s.meaning(a, err)
	if mayBeApplied(err) && (size == 0 || a.sent.Load() >= size) {
		meaning = fmt.Errorf("%w: %w", store.ErrAmbiguous, withoutUnavailable(meaning))
	}
	return s.describe(op, key, meaning)
}

func (s *Store) describe(op, key string, err error) error {
	if key == "" {
		return fmt.Errorf("s3: %s: %w", op, err)
	}
	return fmt.Errorf("s3: %s %s: %w", op, key, err)
}

// meaning maps err to the errors of package store.
func (s *Store) meaning(a *attempt, err error) error {
	if ended := a.parent.Err(); ended != nil {
		return ended
	}
	if a.stalled() {
		return fmt.Errorf("%w: %s: %w (%s)", store.ErrUnavailable, s.endpoint(), errStalled, a.stall)
	}
	if errors.Is(err, errNoCredentials) {
		return fmt.Errorf("%w: %w", store.ErrDenied, err)
	}
	if answer, ok := errors.AsType[minio.ErrorResponse](err); ok {
		return s.answered(answer)
	}
	return fmt.Errorf("%w: %s: %w", store.ErrUnavailable, s.endpoint(), err)
}

// mayBeApplied tells of a write that failed with err whether the server may have done it all the same.
func mayBeApplied(err error) bool {
	if answer, ok := errors.AsType[minio.ErrorResponse](err); ok {
		switch answer.StatusCode {
		case http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
			return true
		}
		return answer.StatusCode >= 520 // what proxies make of a lost origin
	}
	if errors.Is(err, errNoCredentials) || errors.Is(err, errNotRenewed) {
		return false
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return false
	}
	_, badCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	return !badCertificate
}

// withoutUnavailable hides ErrUnavailable, which promises that a write was not applied.
func withoutUnavailable(err error) error {
	if errors.Is(err, store.ErrUnavailable) {
		return errors.New(err.Error())
	}
	return err
}

// answered maps what the server said. Not every 404 is a missing object: versitygw answers an unknown user with one, and a proxy
// whose server is gone for a moment has a page of its own. Whoever took that for a missing manifest would make a new disk, or take
// his own for deleted.
func (s *Store) answered(e minio.ErrorResponse) error {
	if e.StatusCode == http.StatusNotFound && !said(e) {
		return fmt.Errorf("%w: %s answered 404 without saying what is missing, as no object store does", store.ErrUnavailable, s.endpoint())
	}
	switch e.Code {
	case "NoSuchKey":
		return store.ErrNotFound
	case "NoSuchBucket":
		return fmt.Errorf("%w: %s at %s", store.ErrNoBucket, s.config.Bucket, s.endpoint())
	case "AuthorizationHeaderMalformed", "InvalidRegion", "PermanentRedirect", "IllegalLocationConstraintException":
		return fmt.Errorf("%w: %s: %s (is the region right? this host uses %s; region=... in the store's URL sets it)",
			store.ErrDenied, s.endpoint(), e.Message, s.config.region())
	case "RequestTimeTooSkewed":
		return fmt.Errorf("%w: %s: %s (is this host's clock right? it is %s)",
			store.ErrDenied, s.endpoint(), e.Message, time.Now().UTC().Format(time.RFC3339))
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired",
		"XAdminUserNotFound": // versitygw
		return fmt.Errorf("%w: %s says %s: %s", store.ErrDenied, s.endpoint(), e.Code, e.Message)
	case "RequestTimeout", "SlowDown", "Throttling", "BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody",
		"ConditionalRequestConflict", "OperationAborted":
		return s.sentinel(store.ErrUnavailable, e)
	}
	return s.answeredStatus(e)
}

// said tells whether the server named the error itself: minio-go makes one up from the status of any other answer.
func said(e minio.ErrorResponse) bool { return e.XMLName.Local != "" }

func (s *Store) answeredStatus(e minio.ErrorResponse) error {
	switch status := e.StatusCode; {
	case status == http.StatusPreconditionFailed:
		return store.ErrPrecondition
	case status == http.StatusRequestedRangeNotSatisfiable:
		return store.ErrRange
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return s.sentinel(store.ErrDenied, e)
	case status == http.StatusConflict: // versitygw: a key and a folder of the same name
		return s.sentinel(store.ErrBadKey, e)
	case status == http.StatusNotImplemented:
		return s.sentinel(store.ErrUnsuitable, e)
	case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests, status >= 500:
		return s.sentinel(store.ErrUnavailable, e)
	}
	return fmt.Errorf("%s answered %d %s: %s", s.endpoint(), e.StatusCode, e.Code, e.Message)
}

func (s *Store) sentinel(kind error, e minio.ErrorResponse) error {
	return fmt.Errorf("%w: %s answered %d %s: %s", kind, s.endpoint(), e.StatusCode, e.Code, e.Message)
}

// endpoint names the server in messages.
func (s *Store) endpoint() string { return s.client.EndpointURL().String() }
