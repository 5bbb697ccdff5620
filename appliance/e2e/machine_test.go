package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/mounts"
	"glidefs-appliance/appliance/statedir"
	"glidefs-appliance/backend/store/storetest"

	"golang.org/x/sys/unix"
)

// machine is one host: its state dir, and the commands that somebody types there.
type machine struct {
	t     *testing.T
	dir   string // everything of it
	state statedir.Dir
	env   []string
	// wrap is what a command runs under: setpriv and the like; empty for root.
	wrap []string
}

// home is an object store, empty at first.
type home struct {
	url string
	dir string   // its objects are files below it
	env []string // credentials
}

func folder(t *testing.T) home {
	t.Helper()
	dir := scratch(t)
	return home{url: "file://" + dir, dir: dir}
}

func bucket(s *storetest.S3Server) home {
	return home{url: s.URL, dir: s.Dir, env: []string{"AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey}}
}

// scratch makes a folder with a short name, for sockets, and removes it in the end when nothing is mounted there.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e-")
	must(t, err)
	t.Cleanup(func() {
		unmountBelow(dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// newMachine has settings, lines of its configuration file, beside the store.
func newMachine(t *testing.T, store home, settings ...string) *machine {
	t.Helper()
	return machineAt(t, scratch(t), store, settings...)
}

// machineAt is a machine that has everything below dir, which may be a file system of its own.
func machineAt(t *testing.T, dir string, store home, settings ...string) *machine {
	t.Helper()
	m := &machine{t: t, dir: dir, state: statedir.Dir(filepath.Join(dir, "state"))}
	file := filepath.Join(dir, "config.toml")
	lines := append([]string{fmt.Sprintf("store = %q", store.url)}, settings...)
	must(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644))
	m.env = slices.Concat(os.Environ(), store.env, []string{
		"GORACE=atexit_sleep_ms=0", // with the race detector a command would take a second longer
		"GLIDEFS_STORE=", "GLIDEFS_CONFIG=" + file, "GLIDEFS_STATE_DIR=" + string(m.state), "HOME=" + dir,
	})
	t.Cleanup(m.cleanUp)
	return m
}

// mountpoint makes an empty folder.
func (m *machine) mountpoint() string {
	m.t.Helper()
	dir := filepath.Join(m.dir, "mnt")
	must(m.t, os.MkdirAll(dir, 0o755))
	return dir
}

// result is how a command went.
type result struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

// command is one of our commands, not started yet.
func (m *machine) command(args ...string) *exec.Cmd {
	line := slices.Concat(m.wrap, []string{program}, args)
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	m.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Env = m.env
	// A daemon that it starts must not keep us waiting for its output.
	cmd.WaitDelay = time.Second
	return cmd
}

// run runs a command to its end.
func (m *machine) run(args ...string) result {
	m.t.Helper()
	return m.finish(m.start(args...))
}

// running is a command between start and finish.
type running struct {
	*exec.Cmd
	out, err bytes.Buffer
	begin    time.Time
}

func (m *machine) start(args ...string) *running {
	m.t.Helper()
	r := &running{Cmd: m.command(args...), begin: time.Now()}
	r.Stdout, r.Stderr = &r.out, &r.err
	must(m.t, r.Start())
	return r
}

func (m *machine) finish(r *running) result {
	m.t.Helper()
	err := r.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		m.t.Fatalf("%v: %v", r.Args, err)
	}
	return result{r.ProcessState.ExitCode(), r.out.String(), r.err.String(), time.Since(r.begin)}
}

// ok runs a command that must succeed and returns what it printed, without the last newline.
func (m *machine) ok(args ...string) string {
	m.t.Helper()
	r := m.run(args...)
	if r.code != 0 {
		m.t.Fatalf("%v: exit %d: %s", args, r.code, r.stderr)
	}
	return strings.TrimSuffix(r.stdout, "\n")
}

// fails runs a command that must end with just that exit code and say all of that.
func (m *machine) fails(code int, args []string, says ...string) {
	m.t.Helper()
	m.want(m.run(args...), args, code, says...)
}

func (m *machine) want(r result, args []string, code int, says ...string) {
	m.t.Helper()
	if r.code != code {
		m.t.Fatalf("%v: exit %d, want %d: %s%s", args, r.code, code, r.stdout, r.stderr)
	}
	for _, s := range says {
		if !strings.Contains(r.stderr, s) {
			m.t.Errorf("%v says %q, and not %q", args, r.stderr, s)
		}
	}
}

// attach returns the path of the disk.
func (m *machine) attach(name string, more ...string) string {
	m.t.Helper()
	return m.ok(append([]string{"attach", name}, more...)...)
}

// status is what the command shows of one disk.
func (m *machine) status(name string) api.Disk {
	m.t.Helper()
	for _, d := range m.disks() {
		if d.Name == name {
			return d
		}
	}
	m.t.Fatalf("status does not know disk %q", name)
	return api.Disk{}
}

func (m *machine) disks() []api.Disk {
	m.t.Helper()
	var list []api.Disk
	must(m.t, json.Unmarshal([]byte(m.ok("--json", "status")), &list))
	return list
}

// processes finds the supervisor and the daemon, 0 when there is none: those that serve with our state dir.
func (m *machine) processes() (supervisor, daemon int) {
	for _, pid := range processesWith("--state-dir", string(m.state), "serve") {
		if slices.Contains(arguments(pid), "--child") {
			daemon = pid
		} else {
			supervisor = pid
		}
	}
	return supervisor, daemon
}

// processesWith lists the processes that have all of these arguments.
func processesWith(args ...string) []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		have := arguments(pid)
		if !slices.ContainsFunc(args, func(a string) bool { return !slices.Contains(have, a) }) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// arguments of a process; none when it has gone.
func arguments(pid int) []string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}

// daemon is the process of the running daemon.
func (m *machine) daemon() int {
	m.t.Helper()
	_, pid := m.processes()
	if pid == 0 {
		m.t.Fatal("no daemon runs")
	}
	return pid
}

// crash ends the supervisor and the daemon with kill -9.
func (m *machine) crash() {
	m.t.Helper()
	m.daemon()
	m.end()
	eventually(m.t, "the daemon is dead", m.gone)
}

// crashWhileOpening kills a daemon that has just been started and opens the disk, or is about to.
func (m *machine) crashWhileOpening(name string) {
	m.t.Helper()
	attach := m.start("attach", name)
	eventually(m.t, "a daemon has taken the state dir", func() bool { return statedir.Locked(m.state) })
	eventually(m.t, "the daemon is dead", func() bool {
		m.end()
		return m.gone()
	})
	m.finish(attach)
	eventually(m.t, "the daemon is dead", func() bool {
		m.end()
		return m.gone()
	})
}

// gone tells whether no daemon runs.
func (m *machine) gone() bool {
	s, d := m.processes()
	return s == 0 && d == 0 && !statedir.Locked(m.state)
}

// end kills what there is, the supervisor first, who would start another daemon.
func (m *machine) end() {
	s, d := m.processes()
	for _, pid := range []int{s, d} {
		if pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGCONT)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// forget throws away what the machine has on its disks: state and cache.
func (m *machine) forget() {
	m.t.Helper()
	_, err := mounts.CleanDead(m.state.Fuse())
	must(m.t, err)
	must(m.t, os.RemoveAll(string(m.state)))
}

func (m *machine) cleanUp() {
	m.end()
	eventually(m.t, "the daemon is dead", m.gone)
	log, _ := os.ReadFile(m.state.Log())
	_, _ = mounts.CleanDead(m.state.Fuse())
	unmountBelow(m.dir)
	if m.t.Failed() {
		m.t.Logf("log of %s:\n%s", m.dir, log)
	}
	for _, bad := range []string{"DATA RACE", "panic"} {
		if i := bytes.Index(log, []byte(bad)); i >= 0 {
			m.t.Errorf("%s in the log of the daemon:\n%s", bad, log[i:])
		}
	}
}

// unmountBelow unmounts everything at and below dir, last mount first.
func unmountBelow(dir string) {
	for _, at := range slices.Backward(mountsBelow(dir)) {
		_ = unix.Unmount(at, unix.MNT_DETACH)
	}
}

func mountsBelow(dir string) []string {
	var list []string
	table, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			list = append(list, f[4])
		}
	}
	return list
}
