package ublk

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// steps times what makes a device, or takes one back, for the debug log and for Stats.
type steps struct {
	log   *slog.Logger
	sum   *stepSums
	began time.Time
	last  time.Time
	took  []slog.Attr
}

func (s *Server) steps(disk string) *steps {
	now := time.Now()
	return &steps{log: s.o.Log.With("disk", disk), sum: &s.took, began: now, last: now}
}

func (t *steps) step(name string) {
	now := time.Now()
	t.took = append(t.took, slog.Duration(name, now.Sub(t.last)))
	t.sum.add(name, now.Sub(t.last))
	t.last = now
}

func (t *steps) done(what string, args ...any) {
	l := t.log.With(args...).With("took", time.Since(t.began))
	l.LogAttrs(context.Background(), slog.LevelDebug, what, t.took...)
}

// Step is one of the steps that make a device.
type Step struct {
	Name  string
	Count uint64
	Total time.Duration
	Most  time.Duration
}

type stepSums struct {
	mu    sync.Mutex
	steps []Step
}

func (s *stepSums) add(name string, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.steps, func(t Step) bool { return t.Name == name })
	if i < 0 {
		i = len(s.steps)
		s.steps = append(s.steps, Step{Name: name})
	}
	t := &s.steps[i]
	t.Count, t.Total, t.Most = t.Count+1, t.Total+took, max(t.Most, took)
}

func (s *stepSums) list() []Step {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.steps)
}
