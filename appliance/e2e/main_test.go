package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// program is the path of the binary under test: of one built for the tests, or what programEnv names.
var program string

const programEnv = "GLIDEFS_PROGRAM"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests mount file systems: run them as root (make test does)")
		return 1
	}
	dir, err := os.MkdirTemp("", "e2e-bin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// Not the test's folder: the test of a user who is nobody must reach it.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if program = os.Getenv(programEnv); program == "" {
		program = filepath.Join(dir, "glidefs-appliance")
		err = build(program)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	flag.Parse()
	// These tests mostly wait; more of them at once than there are processors.
	if err := flag.Set("test.parallel", "4"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func build(to string) error {
	cmd := exec.Command("go", append([]string{"build", "-trimpath", "-o", to}, "../../cli")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if raceDetector {
		cmd.Args = []string{"go", "build", "-race", "-trimpath", "-o", to, "../../cli"}
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", cmd.Args, err, out)
	}
	return nil
}

// rounds is how often a test that kills is repeated: GLIDEFS_TEST_ROUNDS, else n, and few with -short.
func rounds(t *testing.T, n int) int {
	t.Helper()
	if s := os.Getenv("GLIDEFS_TEST_ROUNDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("GLIDEFS_TEST_ROUNDS=%s: want a number of rounds", s)
		}
		return n
	}
	if testing.Short() {
		return max(1, n/5)
	}
	return n
}

// patience is how long anything may take that has no limit of its own: far more than it needs on a busy machine.
const patience = time.Minute

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// inTime waits for do as long as anything may take. What hangs in the kernel then ends with the daemon, in the clean-up.
func inTime(t testing.TB, what string, do func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatalf("not within %s: %s", patience, what)
		return nil
	}
}

// must is for steps that do not fail.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
