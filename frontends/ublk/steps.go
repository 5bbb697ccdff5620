package ublk

import (
	"context"
	"log/slog"
	"time"
)

// steps times what makes a device, for the debug log.
type steps struct {
	log   *slog.Logger
	began time.Time
	last  time.Time
	took  []slog.Attr
}

func (s *Server) steps(disk string) *steps {
	now := time.Now()
	return &steps{log: s.o.Log.With("disk", disk), began: now, last: now}
}

func (t *steps) step(name string) {
	now := time.Now()
	t.took = append(t.took, slog.Duration(name, now.Sub(t.last)))
	t.last = now
}

func (t *steps) done(what string, args ...any) {
	l := t.log.With(args...).With("took", time.Since(t.began))
	l.LogAttrs(context.Background(), slog.LevelDebug, what, t.took...)
}
