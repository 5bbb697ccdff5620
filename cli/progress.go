package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/config"
)

// lineEvery is how often progress is a line when it is not a bar.
const lineEvery = 5 * time.Second

// progress shows how far something is, on standard error: a bar on a terminal, otherwise a line now and then and a last
// one; nothing with --quiet.
type progress struct {
	what string
	out  io.Writer
	bar  *progressbar.ProgressBar // on a terminal, once there is something to show
	tty  bool
	last time.Time
	seen api.Progress
	any  bool
}

func newProgress(e *env, what string) *progress {
	p := &progress{what: what, out: e.err, last: time.Now()}
	if e.quiet {
		p.out = io.Discard
	}
	f, ok := p.out.(*os.File)
	p.tty = ok && term.IsTerminal(int(f.Fd()))
	return p
}

func (p *progress) update(now api.Progress) {
	p.seen, p.any = now, true
	if p.tty {
		p.showBar()
		return
	}
	if time.Since(p.last) >= lineEvery {
		p.line()
	}
}

func (p *progress) showBar() {
	if p.bar == nil {
		p.bar = progressbar.NewOptions64(p.seen.Total,
			progressbar.OptionSetWriter(p.out),
			progressbar.OptionSetDescription(p.what),
			progressbar.OptionShowBytes(true),
			progressbar.OptionSetWidth(30),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(),
		)
	}
	p.bar.ChangeMax64(p.seen.Total)
	_ = p.bar.Set64(p.seen.Total - p.seen.Left) // a bar that cannot be drawn is no reason to stop
}

func (p *progress) line() {
	p.last = time.Now()
	done := p.seen.Total - p.seen.Left
	percent := int64(100)
	if p.seen.Total > 0 {
		percent = 100 * done / p.seen.Total
	}
	store := ""
	if p.seen.Store != "" && p.seen.Store != "ok" {
		store = "; store: " + p.seen.Store
	}
	fmt.Fprintf(p.out, "%s: %s of %s (%d %%)%s\n", p.what, config.Human(done), config.Human(p.seen.Total), percent, store)
}

// end shows the last state: everything done, when ok.
func (p *progress) end(ok bool) {
	switch {
	case !p.any:
	case p.bar != nil:
		_ = p.bar.Clear()
	case !p.tty:
		if ok {
			p.seen.Left = 0
		}
		p.line()
	}
}
