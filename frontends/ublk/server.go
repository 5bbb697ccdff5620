package ublk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"glidefs-appliance/frontends"
)

var (
	// ErrExists: a disk of that name is being served.
	ErrExists = errors.New("disk is being served already")
	// ErrNotFound: none is.
	ErrNotFound = errors.New("disk is not being served")
	// ErrBusy: the block device is mounted, or otherwise held.
	ErrBusy = errors.New("block device is in use")
)

// Options of a Server. Owner is required.
type Options struct {
	// Owner is the state dir's id: devices of others are never touched.
	Owner string
	// ZeroCopy makes zero-copy devices; Probe tells whether the kernel can. Otherwise USER_COPY.
	ZeroCopy bool
	// Workers is the number of threads; default one per CPU, at most 8.
	Workers int
	// Buffers of 128 KiB per worker; default 64. The memory becomes resident as it is used.
	Buffers int
	Log     *slog.Logger
	// OnPanic is told of a panic below a request, which is answered with EIO. It is called on a worker's thread and must
	// not wait.
	OnPanic func(name string, value any, stack []byte)
}

func (o *Options) ensureDefaults() {
	if o.Workers == 0 {
		o.Workers = min(runtime.NumCPU(), maxWorkers)
	}
	if o.Buffers == 0 {
		o.Buffers = 64
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.OnPanic == nil {
		o.OnPanic = func(string, any, []byte) {}
	}
}

// Server serves disks as block devices. Its methods are safe for concurrent use and may block for as long as the kernel
// does, with limits.
type Server struct {
	o         Options
	owner     uint64 // cookie
	twoAtMost bool   // parts of a request, because the kernel miscounts
	tethers   bool   // rings defer their work: see tethered
	control   *control
	workers   []*worker

	looking sync.Mutex
	lefts   map[uint64]uint32 // devices of a process before us, by cookie; nil until somebody looked
	took    stepSums

	ctx      context.Context // ends Adds
	cancel   context.CancelFunc
	changing sync.WaitGroup // Adds and Removes; begun under mu, while not closed

	mu struct {
		sync.Mutex
		devices map[string]*Device // by name; nil while one is being added or removed
		cookies map[uint64]string
		tags    []int // of each worker
		closed  bool
	}
}

// Open starts the threads. It makes no device. The threads wait in the kernel most of the time, and each takes a slot of
// the scheduler when it comes back, so it makes that many more slots (runtime.GOMAXPROCS): without them a thread waited
// up to milliseconds behind goroutines.
func Open(o Options) (*Server, error) {
	o.ensureDefaults()
	frontends.BecomeFlusher()
	s := &Server{o: o, owner: ownerCookie(o.Owner), twoAtMost: miscounts(release())}
	s.mu.devices, s.mu.cookies, s.mu.tags = map[string]*Device{}, map[uint64]string{}, make([]int, o.Workers)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	var err error
	if s.control, err = openControl(s.o.Log); err != nil {
		return nil, err
	}
	features, err := s.control.features()
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	s.tethers = tethered(features)
	for i := range o.Workers {
		w, err := startWorker(s, i)
		if err != nil {
			return nil, errors.Join(err, s.stop())
		}
		s.workers = append(s.workers, w)
	}
	frontends.SpareSlots(o.Workers)
	return s, nil
}

// miscounted tells whether this kernel must not be given the parts of a request in these extents: one lies in the middle.
func (s *Server) miscounted(extents []frontends.Extent) bool { return s.twoAtMost && len(extents) > 2 }

// Close lets go of everything. Devices that are still there wait, and so do their users, until a server of this owner
// Adds them again; nobody gets an error. Those that are being made are taken away again: while the kernel searches one
// for partitions nothing ends the thread that waits for it, and so the process, but an answer.
func (s *Server) Close() error {
	if !s.shut() {
		return nil
	}
	s.cancel()
	err := s.unchanging()
	return errors.Join(err, s.stop())
}

func (s *Server) shut() (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first = !s.mu.closed
	s.mu.closed = true
	return first
}

// unchanging waits for Adds and Removes that have begun.
func (s *Server) unchanging() error {
	all := make(chan struct{})
	go func() {
		s.changing.Wait()
		close(all)
	}()
	select {
	case <-all:
		return nil
	case <-time.After(changeLimit):
		return errors.New("ublk: a device that was being made or taken away is left as it is")
	}
}

// stop ends the threads. Nothing is answered any more when requests that wait for a store, or for room, are let down.
func (s *Server) stop() error {
	for _, w := range s.workers {
		w.stop()
	}
	for _, w := range s.workers {
		w.halted()
	}
	left := s.published()
	for _, d := range left {
		d.cancel()
	}
	var errs []error
	for _, w := range s.workers {
		errs = append(errs, w.close())
	}
	errs = append(errs, s.control.close())
	for _, d := range left {
		d.deferred.Wait()
		errs = append(errs, d.closeChar())
	}
	return errors.Join(errs...)
}

// published lists the devices that are being served.
func (s *Server) published() (list []*Device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.mu.devices {
		if d != nil {
			list = append(list, d)
		}
	}
	return list
}

// claim takes a name for a device that is about to be made or taken back. The caller ends with changing.Done.
func (s *Server) claim(name string) (cookie uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return 0, fmt.Errorf("serve disk %q: %w", name, context.Canceled)
	}
	if _, taken := s.mu.devices[name]; taken {
		return 0, fmt.Errorf("disk %q: %w", name, ErrExists)
	}
	cookie = diskCookie(s.owner, name)
	if other, taken := s.mu.cookies[cookie]; taken {
		return 0, fmt.Errorf("disk %q: its mark on the device would be that of disk %q; rename one", name, other)
	}
	s.mu.devices[name], s.mu.cookies[cookie] = nil, name
	s.changing.Add(1)
	return cookie, nil
}

// release gives a claimed name back.
func (s *Server) release(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.devices, name)
	delete(s.mu.cookies, diskCookie(s.owner, name))
}

// publish makes a device known under its claimed name.
func (s *Server) publish(d *Device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.devices[d.name] = d
}

// withdraw takes a device out of the table; its name stays claimed. The caller ends with changing.Done.
func (s *Server) withdraw(name string) (*Device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.mu.devices[name]
	if d == nil || s.mu.closed {
		return nil, fmt.Errorf("disk %q: %w", name, ErrNotFound)
	}
	s.mu.devices[name] = nil
	s.changing.Add(1)
	return d, nil
}

// get a device that is being served.
func (s *Server) get(name string) (*Device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.mu.devices[name]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("disk %q: %w", name, ErrNotFound)
}

// depth for a new device.
func (s *Server) depth() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := 0
	for _, n := range s.mu.tags {
		most = max(most, n)
	}
	return depthFor(most)
}

// count the tags of a device, or with sign -1 forget them.
func (s *Server) count(d *Device, sign int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for q := range d.info.Queues {
		for tag := range d.info.Depth {
			s.mu.tags[owner(q, tag, d.perTag, len(s.workers))] += sign
		}
	}
}

// AddOptions of one device.
type AddOptions struct {
	// Copy makes a USER_COPY device on a server of zero-copy ones.
	Copy bool
	// Bare: there is no partition table to look for. Before 7.0 the kernel looks all the same.
	Bare bool
}

// Add serves a disk as a block device. If a process of this owner that is gone left one of that name, with the same
// sector and no larger, it is taken back: its users go on without an error.
func (s *Server) Add(ctx context.Context, name string, disk frontends.Disk, o AddOptions) (*Device, error) {
	cookie, err := s.claim(name)
	if err != nil {
		return nil, err
	}
	defer s.changing.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	d := s.newDevice(name, cookie, disk)
	d.copies, d.bare = o.Copy || !s.o.ZeroCopy, o.Bare
	if err := d.open(ctx); err != nil {
		s.release(name)
		return nil, fmt.Errorf("disk %q: %w", name, err)
	}
	s.publish(d)
	return d, nil
}

// Remove takes a disk's block device away. Without force ErrBusy if it is mounted or held by another driver, and stays so
// until ctx ends or a second has passed; others who
// have it open get EIO from then on, after the requests in flight. With force requests that wait for room or for the
// store end in EIO, and whoever keeps the device open only keeps its number from being used again.
func (s *Server) Remove(ctx context.Context, name string, force bool) error {
	d, err := s.withdraw(name)
	if err != nil {
		return err
	}
	defer s.changing.Done()
	if !force {
		err = d.unused(ctx)
	}
	if err == nil {
		err = d.remove(context.WithoutCancel(ctx), force)
	}
	if err != nil {
		s.publish(d)
		return fmt.Errorf("disk %q: %w", name, err)
	}
	s.release(name)
	return nil
}

// Resize shows users of a disk its new size. errors.ErrUnsupported before 6.16, where they see it at the next attach.
func (s *Server) Resize(name string) error {
	d, err := s.get(name)
	if err != nil {
		return err
	}
	if d.info.Flags&flagUpdateSize == 0 {
		return fmt.Errorf("disk %q: resize ublk device: %w", name, errors.ErrUnsupported)
	}
	return s.control.resize(d.info.ID, d.disk.Size())
}
