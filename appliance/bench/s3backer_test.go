package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"glidefs-appliance/backend/store/storetest"
	"glidefs-appliance/backend/volume"
	"glidefs-appliance/frontends/frontendtest"
)

// TestUploading compares fio on the disk's FUSE file, while it uploads, with s3backer on the same versitygw. While one
// side is measured the other stands still. s3backer has its default settings, so blocks of 4 KiB, as ours are, and a
// cache file as large as the disk; larger blocks would be read and uploaded whole for each random write.
func TestUploading(t *testing.T) {
	size := choose[int64](2<<20, 64<<20)
	gw := storetest.StartVersitygw(t)
	v := openDisk(t, host(t, opened(t, gw.URL), 4<<30, volume.Tuning{UploadAge: time.Second}), "uploading", size)
	path := serve(t, v)
	theirs := startS3Backer(t, gw, size)
	fill(t, v)
	theirs.fill(t)
	for _, r := range frontendtest.Rows {
		ours := func() float64 {
			theirs.hold(t, true)
			defer theirs.hold(t, false)
			v.Pause(false)
			defer v.Pause(true)
			return uploading(t, r, path, size)
		}
		s := turns(choose(1, 3), ours, func() float64 { return uploading(t, r, theirs.file, size) })
		report(row{What: "fio " + r.Name + ", upload running", Unit: "IOPS", sides: s, RefName: "s3backer", Must: ahead(r), Acked: acked(r)})
	}
}

// ahead is what the row must reach.
func ahead(r frontendtest.Row) float64 {
	switch {
	case r.RW == "write":
		return 5
	case writes(r):
		return 1.0001
	}
	return 0.8
}

// uploading runs fio. Reads have a trickle of writes beside them, so that there is something to upload.
func uploading(t testing.TB, r frontendtest.Row, path string, size int64) float64 {
	t.Helper()
	if !writes(r) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		defer func() { cancel(); <-done }()
		go func() {
			defer close(done)
			_, _ = frontendtest.FIO{File: path, RW: "randwrite", BS: 4096, Depth: 1, Size: size, Runtime: time.Minute,
				Extra: []string{"--thread", "--rate_iops=300"}}.Run(ctx) // ends with ctx
		}()
	}
	return iops(t, r, path, size)
}

// s3backer is a mounted disk.
type s3backer struct {
	file string
	size int64
	cmd  *exec.Cmd
	log  bytes.Buffer
}

func startS3Backer(t testing.TB, gw *storetest.S3Server, size int64) *s3backer {
	t.Helper()
	const bucket, block = "s3backer", 4096
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(filepath.Dir(gw.Dir), bucket), 0o700))
	access, mnt := filepath.Join(dir, "access"), filepath.Join(dir, "mnt")
	must(t, os.WriteFile(access, []byte(gw.AccessKey+":"+gw.SecretKey), 0o600))
	must(t, os.Mkdir(mnt, 0o700))
	s := &s3backer{file: filepath.Join(mnt, "file"), size: size}
	s.cmd = exec.Command("s3backer", "-f", "--quiet", "--accessFile="+access, "--baseURL="+gw.Endpoint+"/",
		fmt.Sprintf("--size=%d", size), fmt.Sprintf("--blockCacheSize=%d", size/block),
		"--blockCacheFile="+filepath.Join(dir, "cache"), bucket, mnt)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	must(t, s.cmd.Start())
	t.Cleanup(func() { s.stop(mnt) })
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if st, err := os.Stat(s.file); err == nil && st.Size() == size {
			return s
		}
		if time.Now().After(end) {
			t.Fatal("s3backer does not mount")
		}
	}
}

// stop kills it: what it has not uploaded is of no interest.
func (s *s3backer) stop(mnt string) {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	_ = unix.Unmount(mnt, unix.MNT_DETACH)
}

// hold stops the process, or lets it go on.
func (s *s3backer) hold(t testing.TB, stop bool) {
	t.Helper()
	sig := syscall.SIGCONT
	if stop {
		sig = syscall.SIGSTOP
	}
	must(t, s.cmd.Process.Signal(sig))
}

// fill writes the whole disk once, so that all of it is in the cache file.
func (s *s3backer) fill(t testing.TB) {
	t.Helper()
	_, err := frontendtest.FIO{File: s.file, RW: "write", BS: 128 << 10, Depth: 4, Size: s.size, Runtime: 10 * time.Minute,
		Extra: []string{"--time_based=0"}}.Run(context.Background())
	must(t, err)
}
