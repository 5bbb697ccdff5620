package ublk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/volume"
	"glidefs-appliance/frontends/frontendtest"

	"golang.org/x/sys/unix"
)

// What is compared, in the order of the columns.
var sides = [...]string{"raw file", "loop", "copy", "zero copy"}

const (
	sideRaw = iota
	sideLoop
	sideCopy
	sideZero
)

// benchRows are the workloads, with what zero copy must reach: times the loop device, times USER_COPY, enters per
// request.
var benchRows = []struct {
	frontendtest.Row
	loop, copy, enters float64
}{
	{Row: frontendtest.Row{Name: "4k random read QD1", RW: "randread", BS: 4 << 10, Depth: 1}, enters: 1},
	{Row: frontendtest.Row{Name: "4k random read QD32", RW: "randread", BS: 4 << 10, Depth: 32}, loop: 0.9, enters: 0.2},
	{Row: frontendtest.Row{Name: "128k sequential read QD16", RW: "read", BS: 128 << 10, Depth: 16}, copy: 1.5},
	{Row: frontendtest.Row{Name: "128k sequential write QD16", RW: "write", BS: 128 << 10, Depth: 16}, copy: 1.6},
	{Row: frontendtest.Row{Name: "4k random write QD1", RW: "randwrite", BS: 4 << 10, Depth: 1}, enters: 1},
	{Row: frontendtest.Row{Name: "4k random write QD32", RW: "randwrite", BS: 4 << 10, Depth: 32}, loop: 0.9, enters: 0.2},
	{Row: frontendtest.Row{Name: "4k random 70-30 QD32", RW: "randrw", BS: 4 << 10, Depth: 32}, loop: 0.9, enters: 0.2},
}

const benchRounds = 5

// TestBench prints what fio gets from a raw file, from a loop device over it with direct I/O, and from the block devices
// of a warm disk in each mode, all O_DIRECT on the same file system: medians of rounds in which the sides take turns, so
// that what else the machine does touches all. GLIDEFS_BENCH is how long a run lasts at most; none covers more than the
// disk's size. Nothing is asserted about speed.
//
// Ours is treated as a disk in use: the log has recycled all its segments before, which for the rows that only write had
// writes of the row's size in them, everything is uploaded before a run and nothing during it. Writes are acknowledged in
// the page cache or on the disk, which the raw file's are on; neither is synced.
func TestBench(t *testing.T) {
	span, err := time.ParseDuration(os.Getenv("GLIDEFS_BENCH"))
	if err != nil {
		t.Log("GLIDEFS_BENCH is no duration: nothing is measured")
		return
	}
	b := newBench(t, span)
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "requests/s\traw\tloop\tcopy\tzero\tzero/loop\tmust\tzero/copy\tmust\tenters/request copy\tzero\tmust\tCPU us/request copy\tzero\tinstructions/request copy\tzero\t")
	for _, r := range benchRows {
		t.Run(strings.ReplaceAll(r.Name, " ", "-"), func(t *testing.T) {
			m := b.measure(t, r.Row)
			fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.0f\t%.0f\t", r.Name, m[sideRaw].rate, m[sideLoop].rate, m[sideCopy].rate, m[sideZero].rate)
			fmt.Fprintf(w, "%.2f\t%s\t%.2f\t%s\t", m[sideZero].toLoop, bound(">=", r.loop), m[sideZero].toCopy, bound(">=", r.copy))
			fmt.Fprintf(w, "%.2f\t%.2f\t%s\t", m[sideCopy].enters, m[sideZero].enters, bound("<=", r.enters))
			fmt.Fprintf(w, "%.1f\t%.1f\t%s\t%s\t\n", m[sideCopy].cpu, m[sideZero].cpu, m[sideCopy].counted(), m[sideZero].counted())
		})
	}
	w.Flush()
	fmt.Printf("%s", &out)
	if !b.counts {
		fmt.Println("this machine counts no instructions: the processor time of the workers' threads, in user space and in the kernel, stands for them")
	}
	for i, s := range b.servers {
		if s != nil {
			fmt.Printf("%s: %+v\n", sides[i], s.Stats())
		}
	}
}

func bound(op string, v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf("%s %g", op, v)
}

const benchSize = 64 * mib

type bench struct {
	span    time.Duration
	paths   [len(sides)]string
	servers [len(sides)]*Server
	disks   [len(sides)]*volume.Volume
	counts  bool // instructions can be counted
	stale   bool // since the disks were filled there were writes
	written int  // size of the writes that the logs' segments had last, bytes
}

func newBench(t *testing.T, span time.Duration) *bench {
	b, dir := &bench{span: span}, stateDir(t)
	b.paths[sideRaw] = filepath.Join(dir, "raw")
	fill(t, b.paths[sideRaw], benchSize, true)
	b.paths[sideLoop] = loopOver(t, b.paths[sideRaw])
	offered := modes(t)
	for side, mode := range map[int]string{sideCopy: "copy", sideZero: "zero copy"} {
		zeroCopy, ok := offered[mode]
		if !ok {
			t.Fatalf("%s is not to be had here: %+v", mode, Probe())
		}
		b.open(t, side, filepath.Join(dir, mode), zeroCopy)
	}
	b.counts = b.servers[sideZero].each(countInstructions) == nil && b.servers[sideCopy].each(countInstructions) == nil
	return b
}

// benchLog has room for the disk twice, once uploaded and once not, and little more.
const benchLog = 2*benchSize + benchSize/4 + 64*mib

// open makes a disk and uses it until its log grows no more: what is written then goes to segments that were used
// before.
func (b *bench) open(t *testing.T, side int, dir string, zeroCopy bool) {
	h := tightEngine(t, dir, benchLog, 64*mib, volume.Tuning{UploadAge: time.Hour, NoCompaction: true})
	h.Store = forgetful{mem.New()}
	v := openVolume(t, h, "disk", benchSize, 4096)
	b.disks[side], b.servers[side] = v, openServer(t, zeroCopy)
	b.paths[side] = serve(t, b.servers[side], sides[side], v).Path()
	for before := int64(-1); v.Status().LogBytes > before; {
		before = v.Status().LogBytes
		b.refill(t, side)
	}
}

// refill brings all of a disk into its log, in order.
func (b *bench) refill(t *testing.T, side int) {
	if v := b.disks[side]; v != nil {
		v.Pause(false)
		fill(t, b.paths[side], benchSize, false)
		b.settle(t, side)
	}
}

// settle uploads everything, so that all of the log can be given up for what is written next; then it holds the
// uploader.
func (b *bench) settle(t *testing.T, side int) {
	if v := b.disks[side]; v != nil {
		v.Pause(false)
		if err := v.Sync(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
		v.Pause(true)
	}
}

// forgetful keeps manifests and drops packs: what the disks read is in the log.
type forgetful struct{ store.Store }

func (s forgetful) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	if strings.HasPrefix(key, "packs/") {
		return store.Info{Key: key, Size: int64(len(body)), ETag: "dropped", Modified: time.Now()}, nil
	}
	return s.Store.Put(ctx, key, body, c)
}

// figures of one run, or the medians of several.
type figures struct {
	rate           float64 // requests a second
	toLoop, toCopy float64
	enters         float64 // per request, as are the next
	cpu            float64 // microseconds of the workers' threads
	instructions   float64
}

func (f figures) counted() string {
	if f.instructions == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", f.instructions)
}

func (b *bench) measure(t *testing.T, row frontendtest.Row) (medians [len(sides)]figures) {
	var rounds [len(sides)][]figures
	if b.stale && (row.RW == "randrw" || row.RW == "read" || row.RW == "randread") {
		for side := range sides {
			b.refill(t, side)
		}
	}
	if b.stale = row.RW != "read" && row.RW != "randread"; b.stale && row.BS != b.written {
		b.wear(t, row.BS)
	}
	for i := range benchRounds {
		var round [len(sides)]figures
		for k := range sides {
			side := (i + k) % len(sides)
			b.settle(t, side)
			round[side] = b.run(t, side, row)
		}
		for side := range sides {
			round[side].toLoop = round[side].rate / round[sideLoop].rate
			round[side].toCopy = round[side].rate / round[sideCopy].rate
			rounds[side] = append(rounds[side], round[side])
		}
	}
	for side, r := range rounds {
		t.Logf("%s: %.2f", sides[side], r)
		medians[side] = figures{
			rate:   median(r, func(f figures) float64 { return f.rate }),
			toLoop: median(r, func(f figures) float64 { return f.toLoop }), toCopy: median(r, func(f figures) float64 { return f.toCopy }),
			enters: median(r, func(f figures) float64 { return f.enters }), cpu: median(r, func(f figures) float64 { return f.cpu }),
			instructions: median(r, func(f figures) float64 { return f.instructions }),
		}
	}
	return medians
}

// wear has each segment of the logs take writes of a size: in those that took longer ones the first short one to each page
// has to get it from the kernel, which zeroes it.
func (b *bench) wear(t *testing.T, bs int) {
	b.written = bs
	for side, v := range b.disks {
		for n := 0; v != nil && n < benchLog; n += benchSize {
			b.settle(t, side)
			job := frontendtest.FIO{File: b.paths[side], RW: "randwrite", BS: bs, Depth: 32, Size: benchSize, Runtime: time.Minute,
				Extra: []string{"--time_based=0", fmt.Sprintf("--io_size=%d", benchSize)}}
			if _, err := job.Run(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func median(runs []figures, of func(figures) float64) float64 {
	var v []float64
	for _, r := range runs {
		v = append(v, of(r))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func (b *bench) run(t *testing.T, side int, row frontendtest.Row) (f figures) {
	job := frontendtest.FIO{File: b.paths[side], RW: row.RW, BS: row.BS, Depth: row.Depth, Size: benchSize, Runtime: b.span,
		Extra: []string{"--time_based=0", fmt.Sprintf("--io_size=%d", benchSize), "--rwmixread=70"}}
	s := b.servers[side]
	before := s.spent(t)
	enters := s.enters() // not those that asking costs
	r, err := job.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	enters = s.enters() - enters
	after := s.spent(t)
	if f.rate = r.IOPS; row.RW == "randrw" {
		f.rate /= 0.7 // fio tells reads and writes apart
	}
	f.enters = float64(enters) / float64(r.Requests)
	f.instructions = float64(after.instructions-before.instructions) / float64(r.Requests)
	f.cpu = float64(after.cpu-before.cpu) / float64(r.Requests) / 1000
	return f
}

// spent is what a server's threads have needed since they began.
type spent struct{ instructions, cpu uint64 } // cpu in ns

func (s *Server) spent(t *testing.T) (sum spent) {
	if s == nil {
		return sum
	}
	err := s.each(func(w *worker) error {
		n, err := instructions(w)
		sum.instructions += n
		var use unix.Rusage
		err = errors.Join(err, unix.Getrusage(unix.RUSAGE_THREAD, &use))
		sum.cpu += uint64(use.Utime.Nano() + use.Stime.Nano())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func (s *Server) enters() (n uint64) {
	if s == nil {
		return 0
	}
	for _, w := range s.workers {
		n += w.ring.Enters()
	}
	return n
}

// each calls fn on the thread of every worker, one after the other.
func (s *Server) each(fn func(*worker) error) error {
	for _, w := range s.workers {
		done := make(chan error)
		if !w.inbox.call(func(w *worker) { done <- fn(w) }) {
			return errors.New("a worker has ended")
		}
		if err := <-done; err != nil {
			return err
		}
	}
	return nil
}

// counting holds the descriptors of the workers' counters.
var counting = map[*worker]int{}

// countInstructions begins to count those of the calling thread, in user space and in the kernel.
func countInstructions(w *worker) error {
	attr := &unix.PerfEventAttr{Type: unix.PERF_TYPE_HARDWARE, Config: unix.PERF_COUNT_HW_INSTRUCTIONS}
	fd, err := unix.PerfEventOpen(attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err == nil {
		counting[w] = fd
	}
	return err
}

func instructions(w *worker) (uint64, error) {
	fd, ok := counting[w]
	if !ok {
		return 0, nil
	}
	var n [8]byte
	_, err := unix.Read(fd, n[:])
	return binary.NativeEndian.Uint64(n[:]), err
}

func fill(t *testing.T, path string, size int, create bool) {
	t.Helper()
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(path, flags|unix.O_DIRECT, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := alignedBytes(t, mib)
	for i := range p {
		p[i] = byte(i >> 9)
	}
	for off := 0; off < size; off += mib {
		if _, err := f.WriteAt(p, int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

func loopOver(t *testing.T, file string) string {
	t.Helper()
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer ctl.Close()
	n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		t.Fatal(err)
	}
	back, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	c := unix.LoopConfig{Fd: uint32(back.Fd()), Size: 4096, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_DIRECT_IO | unix.LO_FLAGS_AUTOCLEAR}}
	if err := unix.IoctlLoopConfigure(int(dev.Fd()), &c); err != nil {
		t.Fatal(err)
	}
	return dev.Name()
}
