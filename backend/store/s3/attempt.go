package s3

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"glidefs-appliance/backend/store"
)

const (
	// stallAfter ends a request during which nothing moved.
	stallAfter = 60 * time.Second
	// dialTimeout bounds connecting, and with it how long it takes to notice an endpoint that swallows packets.
	dialTimeout = 10 * time.Second
)

var errStalled = errors.New("nothing moved for too long")

// attempt is one request under way; it is cancelled when nothing moves.
type attempt struct {
	parent context.Context
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
	sent   atomic.Int64 // bytes of the body that the transport has taken
}

func (s *Store) begin(ctx context.Context) *attempt {
	a := &attempt{parent: ctx, stall: s.stall}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	a.timer = time.AfterFunc(a.stall, func() { a.cancel(errStalled) })
	a.ctx = store.OnMoved(a.ctx, func() { a.timer.Reset(a.stall) })
	return a
}

func (a *attempt) end() {
	a.timer.Stop()
	a.cancel(nil)
}

func (a *attempt) stalled() bool { return context.Cause(a.ctx) == errStalled }

// moving keeps a body, in either direction, to the bandwidth limit and reports its progress.
func (a *attempt) moving(r io.Reader) io.Reader {
	r = store.Paced(a.ctx, r)
	return readerFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		a.sent.Add(int64(n))
		return n, err
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// newTransport has enough idle connections for the gateway's slots and never decompresses.
func newTransport() *dates {
	return &dates{&http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   dialTimeout,
		MaxIdleConns:          64,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       time.Minute,
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true,
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
	}}
}

// dates is a transport that hands out the Date header of answers, which minio-go doesn't show.
type dates struct{ inner http.RoundTripper }

type dateKey struct{}

// want returns a context whose request's Date is stored in date when the answer is there.
func (d *dates) want(ctx context.Context) (_ context.Context, date *string) {
	date = new(string)
	return context.WithValue(ctx, dateKey{}, date), date
}

func (d *dates) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := d.inner.RoundTrip(r)
	if date, ok := r.Context().Value(dateKey{}).(*string); ok && err == nil {
		*date = answer.Header.Get("Date")
	}
	return answer, err
}
