package supervisor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary is its own daemon: TestMain acts as what the environment says.
func TestMain(m *testing.M) {
	if role := os.Getenv("TEST_DAEMON"); role != "" {
		daemon(role)
	}
	os.Exit(m.Run())
}

// daemon counts its lives in a file.
func daemon(role string) {
	f, err := os.OpenFile(os.Getenv("TEST_LIVES"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(f, os.Getpid())
	lives, _ := os.ReadFile(f.Name())
	f.Close()
	report := os.NewFile(3, "report")
	if role == "broken" || role == "once" && strings.Count(string(lives), "\n") > 1 {
		fmt.Fprintln(report, `{"error":{"message":"no"}}`)
		os.Exit(7)
	}
	fmt.Fprint(report, ReadyLine)
	report.Close()
	switch role {
	case "crash", "once":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "done":
		os.Exit(0)
	}
	time.Sleep(time.Minute) // until the signal
	os.Exit(3)
}

type buffer struct {
	bytes.Buffer
	closed int
}

func (b *buffer) Close() error { b.closed++; return nil }

// supervise runs a daemon of the given role and returns the exit code, its lives, and what was reported.
func supervise(t *testing.T, role string, during func()) (code, lives, gaveUp, ready int, report *buffer) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "lives")
	t.Setenv("TEST_DAEMON", role)
	t.Setenv("TEST_LIVES", file)
	report = &buffer{}
	code = Run(Options{
		Args: []string{"-test.run=none"}, Report: report, MaxRestarts: 5, Window: time.Minute, Logf: t.Logf,
		Ready: func() {
			ready++
			if during != nil {
				during()
			}
		},
		GiveUp: func() { gaveUp++ },
	})
	b, _ := os.ReadFile(file)
	return code, strings.Count(string(b), "\n"), gaveUp, ready, report
}

func TestGivesUp(t *testing.T) {
	code, lives, gaveUp, ready, report := supervise(t, "crash", nil)
	if code != 1 || lives != 6 || gaveUp != 1 || ready != 1 {
		t.Errorf("code %d after %d lives; gave up %d times, ready %d times", code, lives, gaveUp, ready)
	}
	if report.String() != ReadyLine || report.closed != 1 {
		t.Errorf("report %q, closed %d times", report, report.closed)
	}
}

// Nor do users wait for ever when a later daemon dies before it is ready.
func TestGivesUpOnOneThatIsNotReadyAgain(t *testing.T) {
	code, lives, gaveUp, _, _ := supervise(t, "once", nil)
	if code != 1 || lives != 6 || gaveUp != 1 {
		t.Errorf("code %d after %d lives; gave up %d times", code, lives, gaveUp)
	}
}

func TestNeverReady(t *testing.T) {
	code, lives, gaveUp, ready, report := supervise(t, "broken", nil)
	if code != 7 || lives != 1 || gaveUp != 0 || ready != 0 || !strings.Contains(report.String(), `"no"`) {
		t.Errorf("code %d after %d lives; gave up %d times, ready %d times, report %q", code, lives, gaveUp, ready, report)
	}
}

func TestEndsInOrder(t *testing.T) {
	if code, lives, gaveUp, _, _ := supervise(t, "done", nil); code != 0 || lives != 1 || gaveUp != 0 {
		t.Errorf("code %d after %d lives; gave up %d times", code, lives, gaveUp)
	}
}

// A signal to the supervisor reaches the daemon, and ends both.
func TestSignal(t *testing.T) {
	code, lives, _, _, _ := supervise(t, "wait", func() { syscall.Kill(os.Getpid(), syscall.SIGTERM) })
	if code != 1 || lives != 1 {
		t.Errorf("code %d after %d lives", code, lives)
	}
}

func TestRecent(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	got := recent([]time.Time{at(1), at(2), at(3)}, at(2))
	if len(got) != 2 || got[0] != at(2) {
		t.Errorf("%v", got)
	}
}
