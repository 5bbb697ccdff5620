// Package server answers the protocol of package api from an exports.Manager.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/exports"
)

type handler struct {
	m       *exports.Manager
	daemon  api.Daemon
	metrics http.Handler
	ending  func() bool
}

// New returns a handler; ending tells whether the daemon is about to end, from when on every request gets a 503.
func New(m *exports.Manager, d api.Daemon, metrics http.Handler, ending func() bool) http.Handler {
	s := &handler{m: m, daemon: d, metrics: metrics, ending: ending}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/daemon", s.answer(func(*http.Request) (any, error) { return s.daemon, nil }))
	mux.HandleFunc("GET /v1/disks", s.answer(func(*http.Request) (any, error) { return m.Status(), nil }))
	mux.HandleFunc("GET /v1/volumes", s.answer(func(r *http.Request) (any, error) { return m.Volumes(r.Context()) }))
	mux.HandleFunc("DELETE /v1/volumes/{name}", s.answer(func(r *http.Request) (any, error) {
		return struct{}{}, m.Remove(r.Context(), r.PathValue("name"))
	}))
	mux.HandleFunc("POST /v1/gc", call(s, func(ctx context.Context, _ string, g api.GC) (any, error) { return m.GC(ctx, g) }))
	mux.HandleFunc("POST /v1/disks/{name}/attach", call(s, func(ctx context.Context, name string, a api.Attach) (any, error) {
		return m.Attach(ctx, name, a)
	}))
	mux.HandleFunc("POST /v1/disks/{name}/detach", call(s, func(ctx context.Context, name string, d api.Detach) (any, error) {
		return m.Detach(ctx, name, d)
	}))
	mux.HandleFunc("POST /v1/disks/{name}/resize", call(s, func(ctx context.Context, name string, r api.Resize) (any, error) {
		return m.Resize(ctx, name, r.Size)
	}))
	mux.HandleFunc("POST /v1/disks/{name}/salvage", stream(func(ctx context.Context, name string, a api.Salvage, p func(api.Progress)) (api.Line, error) {
		return api.Line{Salvaged: &a}, m.Salvage(ctx, name, a.As, p)
	}))
	mux.HandleFunc("POST /v1/disks/{name}/abandon", call(s, func(ctx context.Context, name string, a api.Abandon) (any, error) {
		return m.Abandon(ctx, name, a.Dry)
	}))
	mux.HandleFunc("POST /v1/disks/{name}/sync", stream(func(ctx context.Context, name string, _ struct{}, p func(api.Progress)) (api.Line, error) {
		r, err := m.Sync(ctx, name, p)
		return api.Line{Synced: &r}, err
	}))
	mux.HandleFunc("POST /v1/disks/{name}/verify", stream(func(ctx context.Context, name string, _ struct{}, p func(api.Progress)) (api.Line, error) {
		r, err := m.Verify(ctx, name, p)
		return api.Line{Verified: &r}, err
	}))
	mux.Handle("GET /metrics", metrics)
	return s.gate(mux)
}

// gate refuses requests of a daemon that ends.
func (s *handler) gate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.ending() {
			fail(w, &api.Error{Code: api.CodeEnding, Message: "the daemon is ending"})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, api.MaxBody)
		next.ServeHTTP(w, r)
	})
}

func (s *handler) answer(do func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out, err := do(r)
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // the client has gone; nobody is left to tell
	}
}

// call decodes the body into In first.
func call[In any](s *handler, do func(ctx context.Context, name string, in In) (any, error)) http.HandlerFunc {
	return s.answer(func(r *http.Request) (any, error) {
		var in In
		if err := decode(r.Body, &in); err != nil {
			return nil, err
		}
		return do(r.Context(), r.PathValue("name"), in)
	})
}

func decode(body io.Reader, into any) error {
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil && d.More() {
		err = errors.New("more than one JSON value")
	}
	if err != nil {
		return &api.Error{Code: api.CodeInvalid, Message: "request body: " + err.Error()}
	}
	return nil
}

func fail(w http.ResponseWriter, err error) {
	e := asError(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statusOf(e.Code))
	_ = json.NewEncoder(w).Encode(e)
}

func asError(err error) *api.Error {
	e := (*api.Error)(nil)
	if !errors.As(err, &e) {
		return &api.Error{Code: api.CodeInternal, Message: err.Error()}
	}
	// What wraps or joins it has more to say than it alone.
	return &api.Error{Code: e.Code, Message: err.Error()}
}

func statusOf(c api.Code) int {
	switch c {
	case api.CodeInvalid:
		return http.StatusBadRequest
	case api.CodeNotFound:
		return http.StatusNotFound
	case api.CodeOwned, api.CodeBusy, api.CodeRefused:
		return http.StatusConflict
	case api.CodeOffline, api.CodeEnding:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
