package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// fioJob writes blocks with checksums while the disk dies, and verifies what it got acknowledged.
type fioJob struct {
	t    *testing.T
	dir  string // where fio keeps how far it came
	args []string
	cmd  *exec.Cmd
	out  bytes.Buffer
}

// startFIO writes 64 MiB from 32 MiB on. Many writes at once go on after errors, so that each that failed is named. With
// sync there is one at a time, up to the first error: at a failed sync fio drops what else is in flight without a word, and
// its state counts that as written.
func startFIO(t *testing.T, path string, sync bool) *fioJob {
	t.Helper()
	j := &fioJob{t: t, dir: scratch(t), args: []string{
		"--name=j", "--allow_file_create=0", "--offset=32m", "--size=64m", "--rw=randwrite", "--bs=4k",
		"--direct=1", "--verify=crc32c", "--thread",
	}}
	save := []string{"--filename=" + path, "--do_verify=0", "--verify_state_save=1", "--error_dump=1"}
	if sync {
		j.args = append(j.args, "--ioengine=psync", "--fsync=1")
	} else {
		j.args = append(j.args, "--ioengine=libaio", "--iodepth=8")
		save = append(save, "--continue_on_error=write")
	}
	j.cmd = exec.Command("fio", slices.Concat(j.args, save)...)
	j.cmd.Dir = j.dir
	j.cmd.Stdout, j.cmd.Stderr = &j.out, &j.out
	must(t, j.cmd.Start())
	eventually(t, "fio has opened the disk", func() bool { return hasOpen(j.cmd.Process.Pid, path) })
	return j
}

// hasOpen tells whether a process has the file open.
func hasOpen(pid int, path string) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, _ := os.ReadDir(dir)
	return slices.ContainsFunc(fds, func(fd os.DirEntry) bool {
		file, _ := os.Readlink(filepath.Join(dir, fd.Name()))
		return file == path
	})
}

// wait waits for the end, which the death of the disk brings about. A fio that was done before has kept no state.
func (j *fioJob) wait() { _ = j.cmd.Wait() }

var (
	failedWrite  = regexp.MustCompile(`io_u error on file .*: write offset=(\d+),`)
	failedVerify = regexp.MustCompile(`verify: .* offset (\d+), length`)
)

// verify reads what fio has written. fio counts writes as done when it has issued them: those it saw fail may be missing.
func (j *fioJob) verify(path string) {
	j.t.Helper()
	if found, _ := filepath.Glob(filepath.Join(j.dir, "*verify.state")); len(found) == 0 {
		j.t.Fatalf("fio has kept no state:\n%s", j.out.Bytes())
	}
	cmd := exec.Command("fio", append(j.args, "--filename="+path, "--verify_only", "--verify_state_load=1", "--continue_on_error=verify")...)
	cmd.Dir = j.dir
	out, err := cmd.CombinedOutput()
	failed := offsets(failedWrite, j.out.Bytes())
	bad := offsets(failedVerify, out)
	if err != nil && len(bad) == 0 {
		j.t.Errorf("fio: %v:\n%s", err, out)
	}
	for _, off := range bad {
		if !slices.Contains(failed, off) {
			j.t.Errorf("the write that fio got acknowledged at %s is lost; failed writes at %s:\n%s", off, failed, out)
		}
	}
}

func offsets(re *regexp.Regexp, out []byte) []string {
	var list []string
	for _, m := range re.FindAllSubmatch(out, -1) {
		list = append(list, string(m[1]))
	}
	return list
}
