package storetest

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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
	s := &S3Server{Bucket: "glidefs", AccessKey: "test-access", SecretKey: "test-secret", binary: tool(t, "versitygw")}
	s.Dir = filepath.Join(t.TempDir(), s.Bucket)
	if err := os.Mkdir(s.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.addr = freePort(t)
	s.Endpoint = "http://" + s.addr
	s.URL = fmt.Sprintf("s3://%s?endpoint=%s&region=us-east-1", s.Bucket, s.Endpoint)
	t.Setenv("AWS_ACCESS_KEY_ID", s.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s.SecretKey)
	t.Setenv("AWS_SESSION_TOKEN", "")
	t.Cleanup(s.Stop)
	s.Start(t)
	return s
}

// Start starts the server again on the same port and folder, and returns when it answers.
func (s *S3Server) Start(t testing.TB) {
	t.Helper()
	s.child = exec.Command(s.binary, "--port", s.addr, "--keep-alive", "--quiet", "posix", filepath.Dir(s.Dir))
	s.child.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+s.AccessKey, "ROOT_SECRET_ACCESS_KEY="+s.SecretKey)
	s.child.Stdout, s.child.Stderr = &s.output, &s.output
	s.child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.child.Start(); err != nil {
		t.Fatal(err)
	}
	s.exited = make(chan struct{})
	go func(child *exec.Cmd, exited chan struct{}) {
		_ = child.Wait() // it is killed, so there is always an error
		close(exited)
	}(s.child, s.exited)
	s.waitUntilItAnswers(t)
}

func (s *S3Server) waitUntilItAnswers(t testing.TB) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		if answer, err := http.Get(s.Endpoint + "/"); err == nil {
			answer.Body.Close()
			return
		}
		select {
		case <-s.exited:
			t.Fatalf("versitygw ended: %s", s.output.String())
		case <-deadline:
			t.Fatalf("versitygw doesn't answer at %s: %s", s.Endpoint, s.output.String())
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
