package fuse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"glidefs-appliance/frontends"

	"github.com/hanwen/go-fuse/v2/fuse"
)

const (
	// maxWrite bounds one request; 1 MiB is the kernel's limit unless fs.fuse.max_pages_limit is raised. A request in
	// flight holds a buffer of this size, of which only what it carries becomes resident.
	maxWrite = 1 << 20
	// maxBackground bounds the asynchronous requests of all exports together, so it leaves room for two loop devices
	// (128 tags each) whose writes all wait for log space.
	maxBackground = 256
	// maxInflight bounds go-fuse's write buffers: those of all asynchronous requests and of 64 synchronous ones. When
	// they are used up, further requests wait in the kernel, reads too.
	maxInflight = (maxBackground + 64) * (maxWrite + 16<<10)
	// fsName is what the mount table shows as the source, and fsType follows "fuse." in its type.
	fsName = "glidefs"
	fsType = "glidefs-appliance"
)

var (
	// ErrBusy: the export's file is open.
	ErrBusy = errors.New("file is open")
	// ErrExists: the mount has a file of that name.
	ErrExists = errors.New("name is taken")
	// ErrNotFound: the mount has no file of that name.
	ErrNotFound = errors.New("no such export")
)

// Options of a mount.
type Options struct {
	// Logger receives what go-fuse has to say and what goes wrong here; slog.Default() if nil.
	Logger *slog.Logger
	// AllowOther lets other users than the mounting one reach the mount; the files' modes still hold. Not root: needs
	// user_allow_other in /etc/fuse.conf.
	AllowOther bool
	// OnPanic is called after a panic below an export's handler has fenced it. It runs on a goroutine of its own.
	OnPanic func(name string, value any, stack []byte)
}

// Server is one mount. Its methods are safe for concurrent use.
type Server struct {
	dir string
	o   Options
	raw *fuse.Server

	// leaving: Unmount was called, so that the end of the connection is no news.
	leaving atomic.Bool

	// table maps node id - firstNode to the export; replaced whole under mu, read without it.
	table atomic.Pointer[[]*export]

	mu struct {
		sync.Mutex
		byName map[string]*export
	}
}

// Mount mounts a new, empty server at dir, which must be an existing directory. As root it mounts by itself, otherwise
// with fusermount3. It returns once the mount answers. Errors name /dev/fuse's mode when that is why.
func Mount(dir string, o Options) (*Server, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if err := checkDevice(devFuse); err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	s := &Server{dir: dir, o: o}
	s.table.Store(new([]*export))
	s.mu.byName = make(map[string]*export)
	if err := s.start(); err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	return s, nil
}

func (s *Server) start() error {
	if err := checkHelper(); err != nil {
		return err
	}
	frontends.BecomeFlusher()
	raw, err := fuse.NewServer(&rawFS{RawFileSystem: fuse.NewDefaultRawFileSystem(), s: s}, s.dir, s.mountOptions())
	if err != nil {
		return err
	}
	closeOnExec()
	s.raw = raw
	frontends.SpareSlots(2) // [4 KiB writes, 32 at a time on two CPUs: 1.75 of the barest FUSE file before, 2.5 to 3 since]
	go s.serve()
	if err := raw.WaitMount(); err != nil {
		return errors.Join(err, s.Unmount())
	}
	return nil
}

// serve returns when the connection has ended. Not only an unmount ends it: go-fuse gives up a reader for any error of
// read(2) but EINTR and ENOENT, such as ENOMEM or an abort through /sys/fs/fuse, and hangs up when no reader is left. A
// connection can't be taken up again; the next start of the daemon makes a new one.
func (s *Server) serve() {
	s.raw.Serve()
	if s.leaving.Load() {
		return
	}
	s.o.Logger.Error("the FUSE connection has ended, and nobody here unmounted it: users get ENOTCONN until the daemon starts again", "dir", s.dir)
	s.forgetOpens()
}

// forgetOpens: the kernel reports no close any more, so who removes an export must not wait for one.
func (s *Server) forgetOpens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range *s.table.Load() {
		if e != nil {
			e.lookups = 0
			e.closedLocked()
			s.dropLocked(e)
		}
	}
}

func (s *Server) mountOptions() *fuse.MountOptions {
	return &fuse.MountOptions{
		FsName:        fsName,
		Name:          fsType,
		AllowOther:    s.o.AllowOther,
		Options:       []string{"default_permissions"},
		DirectMount:   os.Geteuid() == 0,
		MaxWrite:      maxWrite,
		MaxBackground: maxBackground,
		// Congestion only throttles readahead and write-back, which direct I/O has none of.
		CongestionThreshold:     maxBackground,
		MaxInflightRequestBytes: maxInflight,
		DisableXAttrs:           true,
		DisableReadDirPlus:      true,
		// ASYNC_DIO: without it the kernel turns libaio and loop requests into one request at a time.
		// DIRECT_IO_ALLOW_MMAP (Linux 6.6): MAP_SHARED works on FOPEN_DIRECT_IO files.
		ExtraCapabilities: fuse.CAP_ASYNC_DIO | fuse.CAP_DIRECT_IO_ALLOW_MMAP,
		Logger:            slog.NewLogLogger(s.o.Logger.Handler(), slog.LevelInfo),
		PanicHandler:      s.panicked,
	}
}

// panicked handles a panic outside any export's handler, so there is nothing to fence.
func (s *Server) panicked(v any) fuse.Status {
	s.o.Logger.Error("panic in a FUSE handler", "dir", s.dir, "panic", v)
	return fuse.EIO
}

// Dir is where the server is mounted.
func (s *Server) Dir() string { return s.dir }

// Unmount takes the mount away. With files still open it does so lazily after a third of a second: the directory is
// free, and the exports are evicted, so that the open handles get EIO.
func (s *Server) Unmount() error {
	s.leaving.Store(true)
	err := s.raw.Unmount()
	if err == nil {
		return nil
	}
	lazy := detach(s.dir)
	if lazy != nil {
		return fmt.Errorf("unmount %s: %w", s.dir, errors.Join(err, lazy))
	}
	s.o.Logger.Warn("mount was busy and is detached lazily", "dir", s.dir, "err", err)
	return s.evictAll()
}

func (s *Server) evictAll() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var errs []error
	for _, name := range s.Names() {
		if err := s.Evict(ctx, name); err != nil && !errors.Is(err, ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Wait returns once the mount is gone and no file of it is open any more.
func (s *Server) Wait() { s.raw.Wait() }
