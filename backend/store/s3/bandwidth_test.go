package s3

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/store"
)

// quick is a server without a network: it takes and sends bodies as fast as it is let.
type quick struct{ body []byte }

func (q *quick) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Etag": {`"1"`}}, Body: http.NoBody, Request: r}
	answer.Header.Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
	if r.Method == http.MethodPut {
		if n, err := io.Copy(io.Discard, r.Body); err != nil || n != r.ContentLength {
			return nil, io.ErrUnexpectedEOF
		}
		return answer, nil
	}
	answer.ContentLength, answer.Body = int64(len(q.body)), io.NopCloser(bytes.NewReader(q.body))
	answer.Header.Set("Content-Length", strconv.Itoa(len(q.body)))
	return answer, nil
}

// TestWaitingForBandwidthIsNoStall: each piece of a body waits much longer than a request in which nothing moves may take.
func TestWaitingForBandwidthIsNoStall(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	synctest.Test(t, func(t *testing.T) {
		s := openEndpoint(t, "bucket", "http://127.0.0.1:1")
		s.dates.inner, s.stall = &quick{make([]byte, 100_000)}, 2*time.Second
		stack := store.NewStack(s, store.StackOptions{Gateway: store.GatewayOptions{UploadLimit: 500, DownloadLimit: 500}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		begin := time.Now()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := stack.Put(ctx, "a/b", make([]byte, 25_000), store.Condition{IfAbsent: true}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if _, _, err := stack.Get(ctx, "a/b", store.Range{}); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took < 380*time.Second || took > 410*time.Second {
			t.Errorf("200000 bytes at 500 B/s took %s", took)
		}
	})
}
