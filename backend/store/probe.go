package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
)

// Probe checks that s does what the design relies on: a conditional PUT that creates once, an If-Match that refuses a
// stale ETag and takes the present one, ranged GETs, and a list that shows what was just put, in order. Some servers
// ignore conditions and answer 200; fencing would be a fiction on them. It works under a random key below probe/ and
// deletes what it made. ErrUnsuitable names what is missing; other errors mean that the store could not be asked.
func Probe(ctx context.Context, s Store) error {
	p := prober{ctx: ctx, s: s, folder: "probe/" + strings.ToLower(rand.Text())}
	defer p.clean()
	for _, check := range []func() error{p.createOnce, p.compareAndSwap, p.compareMissing, p.ranges, p.list} {
		if err := check(); err != nil {
			return fmt.Errorf("probe of %s: %w", s.URL(), err)
		}
	}
	return nil
}

type prober struct {
	ctx    context.Context
	s      Store
	folder string
	etag   string // of the object b, after the last check
}

func (p *prober) key(name string) string { return p.folder + "/" + name }

func unsuitable(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnsuitable, fmt.Sprintf(format, args...))
}

// refused demands that a PUT with condition c was refused; what names the header.
func (p *prober) refused(name, what string, c Condition) error {
	_, err := p.s.Put(p.ctx, p.key(name), []byte("must not be stored"), c)
	switch {
	case errors.Is(err, ErrPrecondition):
		return nil
	case err == nil:
		return unsuitable("the store ignores %s: it answered 200 to a PUT that had to be refused", what)
	}
	return err
}

func (p *prober) createOnce() error {
	in, err := p.s.Put(p.ctx, p.key("b"), []byte("first"), Condition{IfAbsent: true})
	if err != nil {
		return asMissing(err, "If-None-Match")
	}
	if p.etag = in.ETag; p.etag == "" {
		return unsuitable("the answer to a PUT has no ETag")
	}
	return p.refused("b", "If-None-Match", Condition{IfAbsent: true})
}

func (p *prober) compareAndSwap() error {
	stale := p.etag
	in, err := p.s.Put(p.ctx, p.key("b"), []byte("0123456789"), Condition{IfMatch: stale})
	if err != nil {
		return asMissing(err, "If-Match with the present ETag")
	}
	p.etag = in.ETag
	if p.etag == stale {
		return unsuitable("the store gives two bodies one ETag")
	}
	return p.refused("b", "If-Match", Condition{IfMatch: stale})
}

func (p *prober) compareMissing() error {
	return p.refused("missing", "If-Match on a missing object", Condition{IfMatch: p.etag})
}

// asMissing makes a refusal of what had to succeed a verdict on the store.
func asMissing(err error, what string) error {
	if errors.Is(err, ErrPrecondition) {
		return unsuitable("the store refuses a PUT whose %s condition holds", what)
	}
	return err
}

func (p *prober) ranges() error {
	for _, c := range []struct {
		what string
		r    Range
		want string
	}{
		{"", Range{}, "0123456789"},
		{"ranged GET", Range{Off: 3, Len: 4}, "3456"},
		{"suffix GET", Range{Off: -3}, "789"},
	} {
		got, in, err := p.s.Get(p.ctx, p.key("b"), c.r)
		switch {
		case err != nil:
			return err
		case !bytes.Equal(got, []byte(c.want)) && c.what == "":
			return unsuitable("a GET after the PUTs returned %q, not the body put last", got)
		case !bytes.Equal(got, []byte(c.want)):
			return unsuitable("no %s: %s of a 10 byte object returned %d bytes", c.what, c.r, len(got))
		case in.ETag != p.etag && (in.ETag != "" || c.r.Whole()):
			return unsuitable("GET tells the ETag %q, the PUT told %q", in.ETag, p.etag)
		}
	}
	return nil
}

func (p *prober) list() error {
	for _, name := range []string{"c", "a/z", "a-z"} {
		if _, err := p.s.Put(p.ctx, p.key(name), nil, Condition{}); err != nil {
			return err
		}
	}
	if err := p.lists("", "a-z", "a/z", "b", "c"); err != nil {
		return err
	}
	return p.lists("a/z", "b", "c")
}

func (p *prober) lists(after string, want ...string) error {
	if after != "" {
		after = p.key(after)
	}
	var got []string
	for in, err := range p.s.List(p.ctx, p.folder+"/", after) {
		if err != nil {
			return err
		}
		got = append(got, strings.TrimPrefix(in.Key, p.folder+"/"))
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		return unsuitable("a list right after the PUTs shows %q, not %q", got, want)
	}
	return nil
}

// clean leaves nothing behind, also when ctx has ended. Failing to is not the probe's verdict.
func (p *prober) clean() {
	for _, name := range []string{"a-z", "a/z", "b", "c", "missing"} {
		_ = p.s.Delete(context.WithoutCancel(p.ctx), p.key(name))
	}
}
