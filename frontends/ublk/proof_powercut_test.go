package ublk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/volume"

	"golang.org/x/sys/unix"
)

const (
	cutDevice = 64 << 20 // below the state dir
	cutBlocks = 512      // of the disk
	cutWrites = 120
	cuts      = 8
)

// TestPowerCut: dm-log-writes lies under the file system of the log and notes every write in the order in which a FLUSH
// made it durable; what none covered is not in its notes. So the notes up to any entry are what a disk with a volatile
// cache may be left with by a power cut at that time. From a number of such disks the daemon starts again after a
// "reboot": the content is that of a prefix of the writes, which goes at least to the last FLUSH that was answered.
func TestPowerCut(t *testing.T) {
	if os.Getenv(labEnv) == "" {
		t.Log(labEnv, "is not set: this host's device mapper is left alone")
		return
	}
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		dir := stateDir(t)
		h := &history{origin: mem.New(), log: filepath.Join(dir, "log"), zeroCopy: zeroCopy}
		t.Run("write", func(t *testing.T) { h.write(t, dir) })
		if t.Failed() {
			return
		}
		notes := readNotes(t, h.log)
		target := create(t, filepath.Join(dir, "target"), cutDevice)
		at := 0
		for _, k := range chooseCuts(notes) {
			for ; at <= k; at++ {
				notes[at].apply(t, target)
			}
			image := filepath.Join(dir, "image")
			shell(t, "cp", "--sparse=always", target.Name(), image)
			t.Run(fmt.Sprint("cut ", k), func(t *testing.T) { h.recover(t, image, lastMark(notes[:k+1])) })
		}
	})
}

// history is what a writer did: at most one request at a time, each block of a request carrying its number, from 1.
type history struct {
	origin   *mem.Store // as it was when the disk was new
	log      string
	zeroCopy bool
	writes   []struct{ block, n int }
}

// engineOn is a daemon's, with its state on a file system.
func (h *history) engineOn(t *testing.T, dir, boot string) *volume.Host {
	e := tightEngine(t, dir, 16<<20, 0, volume.Tuning{SegmentBytes: 256 << 10, UploadAge: time.Hour})
	st := mem.New()
	copyStore(t, st, h.origin)
	behind(e, st)
	e.BootID = boot
	return e
}

// write makes the file system and the disk on it, and notes all that happens below.
func (h *history) write(t *testing.T, dir string) {
	create(t, filepath.Join(dir, "data"), cutDevice)
	create(t, h.log, 16*cutDevice)
	noted := logWrites(t, loop(t, filepath.Join(dir, "data")), loop(t, h.log))
	mnt := mountExt4(t, noted.path)
	e := h.engineOn(t, mnt, "one boot")
	v, err := volume.Open(t.Context(), e, "disk", volume.OpenOptions{Create: cutBlocks * 4096})
	if err != nil {
		t.Fatal(err)
	}
	copyStore(t, h.origin, e.Store)
	v.Pause(true)
	t.Cleanup(func() {
		var pending *volume.PendingError
		if err := v.Close(context.Background()); !errors.As(err, &pending) {
			t.Errorf("close: %v", err)
		}
	})
	f := openDirect(t, serve(t, openServer(t, h.zeroCopy), "disk", v).Path())
	defer f.Close()
	rng, p, a := rand.New(rand.NewPCG(3, 4)), alignedBytes(t, 64<<10), newArea(f, 1, 0, cutBlocks)
	for number := uint64(1); number <= cutWrites; number++ {
		block, n := a.run(rng, 16)
		h.writes = append(h.writes, struct{ block, n int }{block, n})
		if err := a.write(p[:n*4096], block, number); err != nil {
			t.Fatal(err)
		}
		if number%7 == 0 {
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			noted.mark(t, number)
		}
	}
}

// recover starts from a disk as a power cut left it, after the FLUSH that followed write number flushed.
func (h *history) recover(t *testing.T, image string, flushed int) {
	e := h.engineOn(t, mounted(t, loop(t, image)), "another boot")
	v, err := volume.Open(t.Context(), e, "disk", volume.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close(context.Background()) })
	f := openDirect(t, serve(t, openServer(t, h.zeroCopy), "disk", v).Path())
	defer f.Close()
	got := alignedBytes(t, cutBlocks*4096)
	if _, err := f.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	last := 0
	for i := range cutBlocks {
		last = max(last, int(binary.LittleEndian.Uint64(got[i*4096+8:])))
	}
	if last < flushed || last > len(h.writes) {
		t.Fatalf("the newest write is %d of %d; %d were flushed", last, len(h.writes), flushed)
	}
	if want := h.content(last); !bytes.Equal(got, want) {
		t.Errorf("the content is not that after %d writes", last)
	}
	t.Logf("%d writes were flushed, %d are there", flushed, last)
}

// content after n writes.
func (h *history) content(n int) []byte {
	p, names := make([]byte, cutBlocks*4096), newArea(nil, 1, 0, cutBlocks)
	for number, w := range h.writes[:n] {
		for i := w.block; i < w.block+w.n; i++ {
			stamp(p[i*4096:][:4096], names.name(i), uint64(number+1))
		}
	}
	return p
}

func copyStore(t *testing.T, to, from store.Store) {
	t.Helper()
	ctx := context.Background()
	for in, err := range from.List(ctx, "", "") {
		if err != nil {
			t.Fatal(err)
		}
		body, _, err := from.Get(ctx, in.Key, store.Range{})
		if err == nil {
			_, err = to.Put(ctx, in.Key, body, store.Condition{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func create(t *testing.T, path string, size int64) *os.File {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

func shell(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// loop is a loop device over a file.
func loop(t *testing.T, file string) string {
	t.Helper()
	dev := shell(t, "losetup", "--find", "--show", "--direct-io=on", "--sector-size=4096", file)
	t.Cleanup(func() { shell(t, "losetup", "--detach", dev) })
	return dev
}

// noting is a device of dm-log-writes.
type noting struct{ name, path string }

func logWrites(t *testing.T, data, log string) noting {
	t.Helper()
	shell(t, "modprobe", "dm-log-writes")
	n := noting{name: fmt.Sprint("noted-", os.Getpid())}
	table := fmt.Sprintf("0 %d log-writes %s %s", cutDevice>>9, data, log)
	shell(t, "dmsetup", "create", n.name, "--noudevsync", "--table", table)
	t.Cleanup(func() { shell(t, "dmsetup", "remove", "--noudevsync", n.name) })
	n.path = "/dev/" + shell(t, "dmsetup", "info", "--columns", "--noheadings", "--options", "blkdevname", n.name)
	return n
}

func (n noting) mark(t *testing.T, number uint64) {
	t.Helper()
	shell(t, "dmsetup", "message", n.name, "0", fmt.Sprint("mark ", number))
}

// note is an entry of the log of dm-log-writes (drivers/md/dm-log-writes.c):
//
//	sector 0     magic, version, entries (64 bit each), size of a sector (32 bit)
//	then each    sector, sectors, flags, length (64 bit each) and the text of a mark, in one sector; the data of a write
type note struct {
	from    *os.File
	pos, at int64 // of the data in the log, and on the device
	len     int64
	discard bool
	mark    string
}

const (
	noteMagic   = 0x6a736677736872
	noteDiscard = 1 << 2
	noteMark    = 1 << 3
)

func readNotes(t *testing.T, path string) []note {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	head := make([]byte, 512)
	word := func(i int) int64 { return int64(binary.LittleEndian.Uint64(head[8*i:])) }
	if _, err := f.ReadAt(head, 0); err != nil || word(0) != noteMagic {
		t.Fatalf("no log of dm-log-writes: %x, %v", head[:8], err)
	}
	entries, sector := word(2), int64(binary.LittleEndian.Uint32(head[24:]))
	notes := make([]note, entries)
	pos := sector
	for i := range notes {
		if _, err := f.ReadAt(head, pos); err != nil {
			t.Fatal(err)
		}
		flags := word(2)
		pos += sector
		n := &notes[i]
		*n = note{from: f, pos: pos, at: word(0) * sector, len: word(1) * sector, discard: flags&noteDiscard != 0}
		if flags&noteMark != 0 {
			n.mark = string(head[32:][:word(3)])
		}
		if !n.discard {
			pos += n.len
		}
	}
	return notes
}

// apply does the write again.
func (n *note) apply(t *testing.T, to *os.File) {
	t.Helper()
	if n.len == 0 {
		return
	}
	var err error
	if n.discard {
		err = unix.Fallocate(int(to.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, n.at, n.len)
	} else {
		_, err = io.Copy(io.NewOffsetWriter(to, n.at), io.NewSectionReader(n.from, n.pos, n.len))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// lastMark is the number in the last mark, 0 before the first.
func lastMark(notes []note) int {
	for _, n := range slices.Backward(notes) {
		if number, err := strconv.Atoi(strings.TrimSpace(n.mark)); err == nil {
			return number
		}
	}
	return 0
}

// chooseCuts takes entries right after a FLUSH was answered, and any others from the first FLUSH on.
func chooseCuts(notes []note) []int {
	rng := rand.New(rand.NewPCG(5, 6))
	var marks []int
	for i, n := range notes {
		if lastMark(notes[i:i+1]) > 0 && n.mark != "" {
			marks = append(marks, i)
		}
	}
	var list []int
	for range cuts / 2 {
		list = append(list, marks[rng.IntN(len(marks))], marks[0]+rng.IntN(len(notes)-marks[0]))
	}
	slices.Sort(list)
	return slices.Compact(list)
}
