// Package supervisor is the parent of the daemon: it starts the daemon, passes signals on, and starts it again when it
// dies. It opens no disk and no store, so there is little in it that could die.
//
//	who started us ◄── one line on Report ── supervisor ◄── the same line on the child's ReadyFD ── daemon
//
// A first daemon that dies before it reported is not started again: what kept it from starting keeps the next one too.
// After one has reported, it and those that follow are started again at most MaxRestarts times in Window; then the
// supervisor takes the dead FUSE mount and the block devices away and ends, so that the disks' users get errors rather than
// wait for ever.
package supervisor

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// Options of Run.
type Options struct {
	// Args start the daemon with this program; it reports on descriptor 3.
	Args []string
	// Report gets the first line the daemon reports, and is closed then; nil: nobody asks.
	Report io.WriteCloser
	// Ready is called once, when the daemon has reported that it is ready.
	Ready func()
	// GiveUp is called when the daemon died too often.
	GiveUp func()
	// Logf writes a line to the log.
	Logf        func(format string, args ...any)
	MaxRestarts int           // in Window
	Window      time.Duration //
}

// Run returns the exit code of the daemon that ended in order, or that could not start; 1 after it gave up.
func Run(o Options) int {
	shrink()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	var deaths []time.Time
	for served := false; ; {
		end := o.once(signals)
		served = served || end.reported
		if !served || end.stopped || end.code == 0 {
			return end.code
		}
		now := time.Now()
		deaths = recent(append(deaths, now), now.Add(-o.Window))
		if len(deaths) > o.MaxRestarts {
			o.Logf("daemon died (%s) for the %dth time within %s: giving up", end.how, len(deaths), o.Window)
			o.GiveUp()
			return 1
		}
		o.Logf("daemon died (%s): starting it again", end.how)
		o.Report = nil
	}
}

func recent(times []time.Time, since time.Time) []time.Time {
	for len(times) > 0 && times[0].Before(since) {
		times = times[1:]
	}
	return times
}

// ending is how one daemon went.
type ending struct {
	code     int
	how      string
	reported bool // it was ready
	stopped  bool // we passed a signal on
}

// once runs a daemon to its end.
func (o *Options) once(signals <-chan os.Signal) ending {
	r, w, err := os.Pipe()
	if err != nil {
		return o.cannot(err)
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", o.Args...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{w}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return o.cannot(err)
	}
	reported := make(chan bool, 1)
	go func() { reported <- o.relay(r) }()
	ctx, dead := context.WithCancel(context.Background())
	go func() { _ = cmd.Wait(); dead() }() // ProcessState says how it went
	end := ending{stopped: pass(ctx, signals, cmd.Process)}
	end.reported = <-reported
	end.code, end.how = cmd.ProcessState.ExitCode(), cmd.ProcessState.String()
	if end.code < 0 {
		end.code = 1
	}
	return end
}

func (o *Options) cannot(err error) ending {
	o.Logf("daemon cannot be started: %v", err)
	return ending{code: 1}
}

// relay passes the daemon's report on and tells whether it said that it is ready.
func (o *Options) relay(r io.Reader) bool {
	line, _ := bufio.NewReader(r).ReadString('\n')
	if o.Report != nil {
		fmt.Fprint(o.Report, line)
		o.Report.Close()
	}
	ready := line == ReadyLine
	if ready && o.Ready != nil {
		o.Ready()
		o.Ready = nil
	}
	return ready
}

// ReadyLine is the report of a daemon that is ready; any other is why it is not.
const ReadyLine = "{}\n"

// pass hands signals to the daemon until it is dead, and tells whether there was one.
func pass(dead context.Context, signals <-chan os.Signal, daemon *os.Process) (any bool) {
	for {
		select {
		case <-dead.Done():
			return any
		case s := <-signals:
			any = true
			_ = daemon.Signal(s) // it is dead already
		}
	}
}
