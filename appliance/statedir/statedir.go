// Package statedir is the folder a daemon keeps its state in. One daemon at a time has it open.
//
//	lock          held by the running daemon
//	id            32 hex digits: who this state dir is to the object store
//	host          JSON: where this state dir lives, so that a copy of it is recognised
//	store         URL of the store it serves, recorded at first use
//	probed        URL of the store that passed the probe
//	exports.json  disks to open again after a crash, and disks with writes that are only here
//	logs/NAME/    write logs
//	fuse/         the FUSE mount: one file per disk
//	daemon.sock   the daemon's API
//	daemon.log    and daemon.log.1 to .3
//	status.page   what `status` shows when the daemon does not answer
//
// Everything but the sockets, pages and logs is replaced whole and synced. Folders are 0700.
package statedir

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"glidefs-appliance/backend/vfs"
)

// Dir names the files of a state dir; it needs no lock.
type Dir string

func (d Dir) path(name string) string { return filepath.Join(string(d), name) }

// Socket is the daemon's API.
func (d Dir) Socket() string { return d.path("daemon.sock") }

// Log is the daemon's log file.
func (d Dir) Log() string { return d.path("daemon.log") }

// StatusPage is the page that the daemon keeps up to date.
func (d Dir) StatusPage() string { return d.path("status.page") }

// Logs holds the write logs.
func (d Dir) Logs() string { return d.path("logs") }

// Fuse is where the FUSE frontend is mounted.
func (d Dir) Fuse() string { return d.path("fuse") }

// StoreURL returns the recorded store, empty if none is.
func (d Dir) StoreURL() string { return d.line("store") }

func (d Dir) line(name string) string {
	b, err := vfs.ReadFile(vfs.OS(), d.path(name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// State is an open state dir.
type State struct {
	Dir
	// ID is who we are to the object store; a new state dir has a new one.
	ID     [16]byte
	lock   io.Closer
	locked fs.FileInfo // the lock as it was opened
}

// Errors of Open.
var (
	ErrInUse  = errors.New("state dir is in use by another daemon")
	ErrCopied = errors.New("state dir was copied from elsewhere")
	ErrStore  = errors.New("state dir serves another store")
	ErrGone   = errors.New("state dir was deleted, moved or replaced")
)

// A daemon that ends holds its lock a moment longer than its socket.
const lockWait = 3 * time.Second

// Open locks the state dir, making it when it isn't there, and checks that it is the one it was.
func Open(dir string) (*State, error) {
	if err := vfs.OS().MkdirAll(Dir(dir).Logs()); err != nil {
		return nil, explain(dir, err)
	}
	// The kernel reports the files behind loop devices by their real path.
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, explain(dir, err)
	}
	s := &State{Dir: Dir(real)}
	lock, err := waitLock(s.path("lock"))
	if err != nil {
		return nil, explain(dir, err)
	}
	s.lock = lock
	if s.locked, err = os.Stat(s.path("lock")); err == nil {
		err = s.identify()
	}
	if err != nil {
		lock.Close()
		return nil, explain(dir, err)
	}
	return s, nil
}

// Owner is whose our block devices are.
func (s *State) Owner() string { return hex.EncodeToString(s.ID[:]) }

// Gone tells whether the path no longer leads to this state dir: nobody finds us there, and another daemon may begin there
// with an id of its own.
func (s *State) Gone() bool {
	now, err := os.Stat(s.path("lock"))
	return errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(now, s.locked)
}

// Close lets the next daemon in.
func (s *State) Close() error { return s.lock.Close() }

func waitLock(path string) (io.Closer, error) {
	for end := time.Now().Add(lockWait); ; time.Sleep(20 * time.Millisecond) {
		lock, err := vfs.OS().Lock(path)
		if !errors.Is(err, vfs.ErrLocked) || time.Now().After(end) {
			return lock, err
		}
	}
}

func explain(dir string, err error) error {
	switch {
	case errors.Is(err, vfs.ErrLocked):
		return fmt.Errorf("%w: %s; stop that one, or use another --state-dir", ErrInUse, dir)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("state dir %s is on a read-only file system; remount it for writing, or use another --state-dir", dir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("state dir %s cannot be written: %w; use another --state-dir", dir, err)
	case errors.Is(err, vfs.ErrNoSpace):
		return fmt.Errorf("state dir %s: its file system is full; make room there, or use another --state-dir", dir)
	}
	return fmt.Errorf("state dir %s: %w", dir, err)
}

// identify reads the id, or makes one, and checks the place.
func (s *State) identify() error {
	b, err := vfs.ReadFile(vfs.OS(), s.path("id"))
	if errors.Is(err, fs.ErrNotExist) {
		rand.Read(s.ID[:])
		if err := s.write("id", hex.EncodeToString(s.ID[:])+"\n"); err != nil {
			return err
		}
		return s.checkPlace()
	}
	if err != nil {
		return err
	}
	id, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(id) != len(s.ID) {
		return fmt.Errorf("%s is damaged; without it the disks whose logs are here cannot be opened: restore it from a backup", s.path("id"))
	}
	s.ID = [16]byte(id)
	return s.checkPlace()
}

func (s *State) write(name, text string) error {
	if s.Gone() {
		return ErrGone
	}
	return vfs.WriteFile(vfs.OS(), s.path(name), []byte(text))
}

// Serve records the store at first use and afterwards refuses any other. url may be empty: the recorded one, else def.
func (s *State) Serve(url, def string) (string, error) {
	recorded := s.StoreURL()
	switch {
	case recorded == "" && url == "":
		url = def
	case url == "":
		url = recorded
	case recorded != "" && !SameStore(url, recorded):
		return "", fmt.Errorf("%w: %s serves %s, not %s; use another --state-dir for it, or leave --store out", ErrStore, s.Dir, recorded, url)
	}
	return url, s.outside(url)
}

// Record remembers the store that Serve settled; called once the store has answered.
func (s *State) Record(url string) error {
	if s.StoreURL() == url {
		return nil
	}
	return s.write("store", url+"\n")
}

// outside refuses a local store that would go when the state dir goes.
func (s *State) outside(url string) error {
	dir, ok := strings.CutPrefix(url, "file://")
	if !ok {
		return nil
	}
	if within(resolve(dir), resolve(string(s.Dir))) {
		return fmt.Errorf("store %s lies in the state dir %s and would be lost with it; choose a folder outside", url, s.Dir)
	}
	return nil
}

func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// resolve follows the symbolic links of the part of path that exists.
func resolve(path string) string {
	path = filepath.Clean(path)
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	parent := filepath.Dir(path)
	if parent == path {
		return path
	}
	return filepath.Join(resolve(parent), filepath.Base(path))
}

// Probed tells whether the store at url has passed the probe before.
func (s *State) Probed(url string) bool {
	probed := s.line("probed")
	return probed != "" && SameStore(probed, url)
}

// SetProbed remembers that it has.
func (s *State) SetProbed(url string) error { return s.write("probed", url+"\n") }

// Locked tells whether a daemon holds the state dir.
func Locked(d Dir) bool {
	f, err := os.Open(d.path("lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	// A shared lock is enough to find out, and it never makes two askers see each other.
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// SameStore tells whether two URLs are written differently at most.
func SameStore(a, b string) bool { return canonical(a) == canonical(b) }

func canonical(raw string) string {
	if dir, ok := strings.CutPrefix(raw, "file://"); ok {
		return "file://" + filepath.Clean(dir)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	u.RawQuery = u.Query().Encode()
	return strings.TrimRight(u.String(), "/")
}
