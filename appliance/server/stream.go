package server

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"glidefs-appliance/appliance/api"
)

// progressEvery bounds how often a stream says something.
const progressEvery = 200 * time.Millisecond

// stream answers with one JSON line per progress report and one for the end. The operation never waits for the client:
// reports overwrite each other until the writer takes the last.
func stream[In any](do func(ctx context.Context, name string, in In, progress func(api.Progress)) (api.Line, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		if r.ContentLength != 0 {
			if err := decode(r.Body, &in); err != nil {
				fail(w, err)
				return
			}
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		out := &lines{w: w}
		latest := make(chan api.Progress, 1)
		stop := make(chan struct{})
		var writer sync.WaitGroup
		writer.Go(func() { out.follow(latest, stop) })
		last, err := do(r.Context(), r.PathValue("name"), in, func(p api.Progress) {
			select {
			case <-latest:
			default:
			}
			select {
			case latest <- p:
			default: // another reporter was faster
			}
		})
		close(stop)
		writer.Wait()
		if err != nil {
			last = api.Line{Error: asError(err)}
		}
		out.write(last)
	}
}

// lines writes one JSON value a line and sends each at once.
type lines struct{ w http.ResponseWriter }

func (l *lines) write(v api.Line) {
	if err := json.NewEncoder(l.w).Encode(v); err != nil {
		return // the client has gone, and with it the request's context
	}
	_ = http.NewResponseController(l.w).Flush()
}

func (l *lines) follow(latest <-chan api.Progress, stop <-chan struct{}) {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		select {
		case p := <-latest:
			l.write(api.Line{Progress: &p})
		default:
		}
	}
}
