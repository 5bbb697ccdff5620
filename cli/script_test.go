package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"glidefs-appliance/appliance/mounts"
	"glidefs-appliance/appliance/statedir"
	"glidefs-appliance/appliance/statuspage"
)

// The test binary is the program when it is called so; the daemon that it starts is itself again.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"glidefs-appliance": main})
}

// TestScript runs each file of testdata/script in a folder of its own, as root, with real FUSE mounts, loop devices and
// daemons. Environment: GLIDEFS_STORE is the folder store, GLIDEFS_STATE_DIR the folder state, mnt an empty folder;
// GLIDEFS_FRONTEND is fuse.
func TestScript(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("these tests mount file systems: run them as root (make test does)")
	}
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/script",
		Setup: setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      exits,
			"crash":      crash,
			"freeze":     freeze,
			"flip":       flip,
			"gone":       gone,
			"json":       jsonField,
			"versitygw":  versitygw,
			"lyingstore": lyingStore,
			"fullstore":  fullStore,
			"notified":   notified,
			"supervisor": supervisorSize,
		},
	})
}

func setup(env *testscript.Env) error {
	for _, dir := range []string{"store", "mnt", "other"} {
		if err := os.Mkdir(filepath.Join(env.WorkDir, dir), 0o755); err != nil {
			return err
		}
	}
	env.Setenv("GLIDEFS_STORE", "file://"+env.WorkDir+"/store")
	env.Setenv("GLIDEFS_STATE_DIR", env.WorkDir+"/state")
	env.Setenv("GLIDEFS_FRONTEND", "fuse") // whatever else the host offers: the lab has scripts of its own
	env.Setenv("HOME", env.WorkDir)
	repo, err := filepath.Abs("..")
	if err != nil {
		return err
	}
	env.Setenv("REPO", repo)
	env.Setenv("PATH", env.Getenv("PATH")+":/usr/sbin:/sbin")
	env.Defer(func() { cleanUp(env.WorkDir) })
	return nil
}

// cleanUp ends the daemons of a script and unmounts what it left.
func cleanUp(work string) {
	states, _ := filepath.Glob(work + "/*/status.page")
	for _, page := range states {
		kill(page)
		_, _ = mounts.CleanDead(filepath.Join(filepath.Dir(page), "fuse"))
	}
	table, _ := os.ReadFile("/proc/self/mountinfo")
	for _, line := range slices.Backward(strings.Split(string(table), "\n")) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], work+"/") {
			_ = unix.Unmount(f[4], unix.MNT_DETACH)
		}
	}
}

// kill ends the daemon that writes a page, and its supervisor, which comes first.
func kill(page string) {
	c, err := statuspage.Read(page)
	if err != nil || !c.Writer.Alive() {
		return
	}
	for _, pid := range []int{parent(c.Writer.PID), c.Writer.PID} {
		if pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGCONT)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	eventually(func() bool { return !c.Writer.Alive() })
}

// parent is the supervisor of a daemon, 0 when it has none.
func parent(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "PPid:"); ok {
			ppid, _ := strconv.Atoi(strings.TrimSpace(v))
			cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", ppid))
			if strings.Contains(string(cmd), "serve") {
				return ppid
			}
		}
	}
	return 0
}

func eventually(ok func() bool) bool {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return ok()
}

// exits CODE COMMAND...: the command ends with just that code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func pageOf(ts *testscript.TestScript, args []string) string {
	dir := ts.Getenv("GLIDEFS_STATE_DIR")
	if len(args) > 0 {
		dir = ts.MkAbs(args[0])
	}
	return statedir.Dir(dir).StatusPage()
}

func writer(ts *testscript.TestScript, page string) statuspage.Writer {
	c, err := statuspage.Read(page)
	ts.Check(err)
	if !c.Writer.Alive() {
		ts.Fatalf("no daemon writes %s", page)
	}
	return c.Writer
}

// crash [STATE]: kills the daemon, and its supervisor so that nobody starts it again; `crash daemon` only the daemon, and
// waits for the next one.
func crash(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) > 0 && args[0] == "daemon" {
		page := pageOf(ts, args[1:])
		old := writer(ts, page)
		ts.Check(syscall.Kill(old.PID, syscall.SIGKILL))
		if !eventually(func() bool {
			c, err := statuspage.Read(page)
			return err == nil && c.Writer != old && c.Writer.Alive()
		}) {
			ts.Fatalf("nobody started the daemon again")
		}
		return
	}
	page := pageOf(ts, args)
	writer(ts, page)
	kill(page)
}

// freeze [STATE]: stops the daemon with SIGSTOP; with !, lets it go on.
func freeze(ts *testscript.TestScript, neg bool, args []string) {
	signal := syscall.SIGSTOP
	if neg {
		signal = syscall.SIGCONT
	}
	ts.Check(syscall.Kill(writer(ts, pageOf(ts, args)).PID, signal))
}

// flip FILE OFFSET [VALUE]: changes a byte of a file; a negative offset counts from its end.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	found, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(found) == 0 {
		ts.Fatalf("no file is called %s", args[0])
	}
	b, err := os.ReadFile(found[0])
	ts.Check(err)
	off, err := strconv.Atoi(args[1])
	ts.Check(err)
	if off < 0 {
		off += len(b)
	}
	b[off] ^= 0xff
	if len(args) > 2 {
		v, err := strconv.Atoi(args[2])
		ts.Check(err)
		b[off] = byte(v)
	}
	ts.Check(os.WriteFile(found[0], b, 0o600))
}

// gone [STATE]: waits until no daemon has the state dir.
func gone(ts *testscript.TestScript, neg bool, args []string) {
	dir := statedir.Dir(filepath.Dir(pageOf(ts, args)))
	if !eventually(func() bool { return !statedir.Locked(dir) }) {
		ts.Fatalf("a daemon still has %s", dir)
	}
}

// json FIELD VALUE: of the first element of the array that the last command printed.
func jsonField(ts *testscript.TestScript, neg bool, args []string) {
	var list []map[string]any
	dec := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	dec.UseNumber()
	ts.Check(dec.Decode(&list))
	if len(list) == 0 {
		ts.Fatalf("an empty array")
	}
	v, ok := list[0][args[0]]
	if got := fmt.Sprint(v); !ok || (got == args[1]) == neg {
		ts.Fatalf("%s is %s", args[0], got)
	}
}

// versitygw VARIABLE: starts an S3 server with one bucket, `disks`, and puts its address into the variable; again after
// `! versitygw VARIABLE` has ended it, at the same address.
func versitygw(ts *testscript.TestScript, neg bool, args []string) {
	url, running := ts.Getenv(args[0]), "PID_"+args[0]
	if neg {
		endGateway(ts.Getenv(running))
		return
	}
	if url == "" {
		url = freeURL()
		ts.Setenv(args[0], url)
	}
	root := ts.MkAbs("s3")
	ts.Check(os.MkdirAll(filepath.Join(root, "disks"), 0o755))
	cmd := exec.Command(gateway(), "--port", strings.TrimPrefix(url, "http://"), "--access", "key", "--secret", "secret", "--quiet", "posix", root)
	ts.Check(cmd.Start())
	ts.Setenv(running, strconv.Itoa(cmd.Process.Pid))
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	if !eventually(func() bool { return answers(url) }) {
		ts.Fatalf("versitygw does not answer")
	}
}

func endGateway(pid string) {
	if n, err := strconv.Atoi(pid); err == nil {
		_ = syscall.Kill(n, syscall.SIGKILL)
	}
}

func answers(url string) bool {
	resp, err := http.Get(url)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return true
}

// gateway is where make tools put the server, unless it is on the PATH.
func gateway() string {
	if path, err := exec.LookPath("versitygw"); err == nil {
		return path
	}
	cache, _ := os.UserCacheDir()
	return filepath.Join(cache, "glidefs-appliance/tools/versitygw")
}

// freeURL is where nobody listens right now.
func freeURL() string {
	s := httptest.NewServer(nil)
	defer s.Close()
	return s.URL
}

// lyingstore VARIABLE: starts a server that answers 200 to every PUT, whatever its condition.
func lyingStore(ts *testscript.TestScript, neg bool, args []string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"d41d8cd98f00b204e9800998ecf8427e"`)
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
	}))
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL)
}

// fullstore VARIABLE SERVER: starts a proxy before an S3 server that refuses PUTs, as a store that is full or throttles
// does, while there is a file `full`.
func fullStore(ts *testscript.TestScript, neg bool, args []string) {
	server, err := url.Parse(args[1])
	ts.Check(err)
	proxy, full := httputil.NewSingleHostReverseProxy(server), ts.MkAbs("full")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := os.Stat(full); err == nil && r.Method == http.MethodPut {
			http.Error(w, "full", http.StatusServiceUnavailable)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL)
}

// notified: without arguments it takes systemd's place from here on; `notified LINE` waits for a notification.
func notified(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs("notify")
	if len(args) == 0 {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		ts.Check(err)
		ts.Defer(func() { conn.Close() })
		go collect(conn, path+".lines")
		ts.Setenv("NOTIFY_SOCKET", path)
		return
	}
	if !eventually(func() bool {
		b, _ := os.ReadFile(path + ".lines")
		return strings.Contains(string(b), args[0]+"\n")
	}) {
		ts.Fatalf("no %s came", args[0])
	}
}

func collect(conn net.Conn, file string) {
	b := make([]byte, 4096)
	for {
		n, err := conn.Read(b)
		if err != nil {
			return
		}
		f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return
		}
		fmt.Fprintf(f, "%s\n", b[:n])
		f.Close()
	}
}

// supervisor PRIVATE_KB RESIDENT_KB: the daemon's parent is no larger than that.
func supervisorSize(ts *testscript.TestScript, neg bool, args []string) {
	pid := parent(writer(ts, pageOf(ts, nil)).PID)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	ts.Check(err)
	for i, field := range []string{"RssAnon:", "VmRSS:"} {
		most, err := strconv.Atoi(args[i])
		ts.Check(err)
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); f[0] == field {
				ts.Logf("%s %s kB", field, f[1])
				if n, err := strconv.Atoi(f[1]); err != nil || n > most {
					ts.Fatalf("%s %s kB, at most %d", field, f[1], most)
				}
			}
		}
	}
}
