package storetest

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Versitygw starts a real S3 server for the test, puts its credentials into the environment and returns the URL of an
// empty bucket. The test fails if the binary isn't there.
func Versitygw(t testing.TB) string { return StartVersitygw(t).URL }

// S3Server is a running versitygw with its posix backend. Its version and conditional semantics come from xattrs; its
// --sidecar mode loses updates and is never used.
type S3Server struct {
	URL       string // s3://bucket?endpoint=...
	Endpoint  string // http://127.0.0.1:port
	Bucket    string
	AccessKey string
	SecretKey string
	Dir       string // the bucket's folder: an object is the file of its key

	addr   string
	binary string
	output syncBuffer
	child  *exec.Cmd
	exited chan struct{}
}

// StartVersitygw starts the server; it is stopped at the end of the test. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are
// set for the test, so t may not be parallel.
func StartVersitygw(t testing.TB) *S3Server {
	t.Helper()
	// Names of its own, so that a test that meets another test's server fails rather than shares it.
	id := strings.ToLower(rand.Text())
	s := &S3Server{Bucket: "test-" + id, AccessKey: "access-" + id, SecretKey: "secret-" + id, binary: tool(t, "versitygw")}
	s.Dir = filepath.Join(t.TempDir(), s.Bucket)
	if err := os.Mkdir(s.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	for try := 1; ; try++ {
		s.addr = freePort(t)
		s.Endpoint = "http://" + s.addr
		err := s.start()
		if err == nil {
			break
		}
		if try == 5 { // somebody else may take a free port before it does
			t.Fatal(err)
		}
	}
	s.URL = fmt.Sprintf("s3://%s?endpoint=%s&region=us-east-1", s.Bucket, s.Endpoint)
	t.Setenv("AWS_ACCESS_KEY_ID", s.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s.SecretKey)
	t.Setenv("AWS_SESSION_TOKEN", "")
	return s
}

// Start starts the server again, after Stop, on the same port and folder, and returns when it answers.
func (s *S3Server) Start(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

func (s *S3Server) start() error {
	child := exec.Command(s.binary, "--port", s.addr, "--keep-alive", "--quiet", "posix", filepath.Dir(s.Dir))
	child.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+s.AccessKey, "ROOT_SECRET_ACCESS_KEY="+s.SecretKey)
	child.Stdout, child.Stderr = &s.output, &s.output
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, exited := make(chan error, 1), make(chan struct{})
	go func() {
		// The death signal comes when the thread that started the child ends, so this one stays as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(exited)
		err := child.Start()
		started <- err
		if err == nil {
			_ = child.Wait() // it is killed, so there is always an error
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.child, s.exited = child, exited
	return s.waitUntilItAnswers()
}

func (s *S3Server) waitUntilItAnswers() error {
	deadline := time.After(20 * time.Second)
	for {
		if answer, err := http.Get(s.Endpoint + "/"); err == nil {
			answer.Body.Close()
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("versitygw ended: %s", s.output.String())
		case <-deadline:
			return fmt.Errorf("versitygw doesn't answer at %s: %s", s.Endpoint, s.output.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Stop kills the server and waits for its end; objects stay. Stopping twice is allowed.
func (s *S3Server) Stop() {
	if s.child == nil {
		return
	}
	_ = s.child.Process.Kill() // an error means that it has ended
	<-s.exited
	s.child = nil
}

// tool returns the path of a program that `make tools` installs.
func tool(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("GLIDEFS_TOOLS")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatalf("no cache folder: %v; set GLIDEFS_TOOLS", err)
		}
		dir = filepath.Join(cache, "glidefs-appliance", "tools")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is missing; install it with: make tools", path)
	}
	return path
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
