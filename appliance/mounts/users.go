package mounts

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// users says who keeps the file system at dir busy, as far as /proc and /sys tell. It compares paths and opens nothing
// below dir, so it does not block on a sick disk.
func users(dir string) []string {
	var found []string
	if subs, err := below(dir); err == nil {
		for _, m := range subs {
			found = append(found, "the file system mounted at "+m)
		}
	}
	devs, err := loopsWhere(func(backing string) bool { return inside(backing, dir) })
	if err == nil {
		for _, dev := range devs {
			found = append(found, dev+" over "+BackingFile(dev))
		}
	}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return found
	}
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		if how := use(pid, dir); how != "" {
			found = append(found, fmt.Sprintf("%s (pid %d: %s)", comm(pid), pid, how))
		}
	}
	return found
}

func inside(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func comm(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "a process"
	}
	return strings.TrimSpace(string(b))
}

// use says how a process uses dir, "" if it doesn't or is not ours to examine.
func use(pid int, dir string) string {
	proc := fmt.Sprintf("/proc/%d", pid)
	for link, how := range map[string]string{"cwd": "working directory", "root": "root directory", "exe": "program"} {
		if to, err := os.Readlink(filepath.Join(proc, link)); err == nil && inside(to, dir) {
			return how
		}
	}
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join(proc, "fd", fd.Name())); err == nil && inside(to, dir) {
			return "open file " + to
		}
	}
	return mapping(filepath.Join(proc, "maps"), dir)
}

// mapping looks for a mapped file; the path is what follows the fifth field of a line.
func mapping(maps, dir string) string {
	f, err := os.Open(maps)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if i := strings.IndexByte(lines.Text(), '/'); i >= 0 && inside(lines.Text()[i:], dir) {
			return "mapped file " + lines.Text()[i:]
		}
	}
	return ""
}
