package wlog

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"glidefs-appliance/backend/vfs"
)

// edit changes what a dead process has left.
type edit func(t *testing.T, fs *vfs.Crash)

func segmentFile(number int) string { return fmt.Sprintf("%s/%08d.seg", testDir, number) }

func poke(name string, off int64, p []byte) edit {
	return func(t *testing.T, fs *vfs.Crash) {
		f, err := fs.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(p, off); err != nil {
			t.Fatal(err)
		}
	}
}

// wipeRecord destroys the record in a slot.
func wipeRecord(segment int, slot int64) edit {
	return poke(segmentFile(segment), blockSize+slot*recordSize, make([]byte, recordSize))
}

// wipeData changes a byte in a block of the data area.
func wipeData(segment int, n int64) edit {
	return poke(segmentFile(segment), dataStart(minSegment)+n*blockSize, []byte{0xff})
}

func remove(name string) edit {
	return func(t *testing.T, fs *vfs.Crash) {
		if err := fs.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

func both(a, b edit) edit {
	return func(t *testing.T, fs *vfs.Crash) { a(t, fs); b(t, fs) }
}

// TestRecovery: 20 writes; 1-10 are flushed, with a mark for 10 if they carry no checksum. The first 14 lie in segment
// 0 (the mark in between them takes a slot but no block), the others in segment 1.
func TestRecovery(t *testing.T) {
	for _, tt := range []struct {
		name   string
		sum    bool // all writes carry checksums
		reboot bool
		edit   edit
		end    uint64
		damage string // or part of the message
	}{
		{name: "killed", end: 21},
		{name: "killed with checksums", sum: true, end: 20},
		{name: "killed in the last record", edit: wipeRecord(1, 5), end: 20},
		{name: "killed in the first record of a segment", edit: func(t *testing.T, fs *vfs.Crash) {
			for slot := range int64(6) {
				wipeRecord(1, slot)(t, fs)
			}
		}, end: 15},
		{name: "killed, data is not looked at", sum: true, edit: wipeData(0, 12), end: 20},
		{name: "killed, a record lost in between", edit: wipeRecord(0, 12), damage: "record 13: it is missing although record 14 is there"},
		{name: "killed, a durable record lost", edit: wipeRecord(0, 3), damage: "00000000.seg, record 4: it is missing"},
		{name: "killed, a segment lost", edit: remove(segmentFile(0)), damage: "record 1: it is missing"},
		{name: "killed, a header damaged", edit: poke(segmentFile(1), 100, []byte{1}), damage: "00000001.seg: checksum of the segment header"},
		{name: "killed, a segment shortened", edit: func(t *testing.T, fs *vfs.Crash) {
			f, _ := fs.Open(segmentFile(1))
			_ = f.Truncate(8192)
		}, damage: "the file has 8192"},
		{name: "cut, no checksums", reboot: true, end: 10},
		{name: "cut, checksums", sum: true, reboot: true, end: 20},
		{name: "cut, data lost beyond the mark", sum: true, reboot: true, edit: wipeData(0, 12), end: 12},
		{name: "cut, a record lost beyond the mark", sum: true, reboot: true, edit: wipeRecord(0, 12), end: 12},
		{name: "cut, a segment lost beyond the mark", sum: true, reboot: true, edit: remove(segmentFile(1)), end: 14},
		{name: "cut, a durable record lost", reboot: true, edit: wipeRecord(0, 3), damage: "record 4: it is missing"},
		{name: "cut, the durable segment lost", reboot: true, edit: remove(segmentFile(0)), end: 0},
		{name: "cut, everything durable lost but the mark", reboot: true, edit: func(t *testing.T, fs *vfs.Crash) {
			for slot := range int64(10) {
				wipeRecord(0, slot)(t, fs)
			}
		}, damage: "record 1: it is missing"},
		{name: "no head", edit: remove(testDir + "/head"), damage: "the head is missing although there are segments"},
		{name: "damaged head", edit: poke(testDir+"/head", 40, []byte{0xff}), damage: "checksum of the log head"},
		{name: "a newer head", edit: poke(testDir+"/head", 0, []byte("glidehea")), damage: "not a log head"},
		{name: "no head and no segments", edit: both(remove(testDir+"/head"), both(remove(segmentFile(0)), remove(segmentFile(1)))), end: 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fs := vfs.NewCrash()
			l := startLog(t, testOptions(fs), 1)
			for i := range uint64(20) {
				l.write(i, i, tt.sum)
				if i == 9 {
					l.flush()
				}
			}
			l.Kill(errors.New("killed"))
			l.wg.Wait()
			fs = fs.Kill()
			if tt.edit != nil {
				tt.edit(t, fs)
			}
			o := testOptions(fs)
			if tt.reboot {
				o.BootID = "boot-2"
			}
			again, err := Open(o)
			var damage *DamageError
			if tt.damage != "" {
				if !errors.Is(err, ErrDamaged) || !errors.As(err, &damage) || !strings.Contains(err.Error(), tt.damage) {
					t.Fatalf("got %v, want damage %q", err, tt.damage)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			if end := again.End().Seq; end != tt.end {
				t.Errorf("log ends at %d, want %d", end, tt.end)
			}
		})
	}
}

// TestDroppedRecordsStayDropped: records that a reboot dropped are still on the disk, under seqs that are given again.
func TestDroppedRecordsStayDropped(t *testing.T) {
	fs := vfs.NewCrash()
	o := testOptions(fs)
	l := startLog(t, o, 1)
	l.write(1, 1, false)
	l.flush()
	l.write(2, 2, false)
	l.write(3, 3, false)
	l.Kill(errors.New("power cut"))
	fs = fs.Kill()
	o = testOptions(fs)
	o.BootID = "boot-2"
	l = startLog(t, o, 2)
	if end := l.End().Seq; end != 1 {
		t.Fatalf("log ends at %d", end)
	}
	if seq := l.write(9, 9, true); seq != 3 { // 2 is the mark, which is kept
		t.Fatalf("seq %d", seq)
	}
	old := l.LastBarrier()
	for _, boot := range []string{"boot-2", "boot-3"} {
		l.Kill(errors.New("killed"))
		fs = fs.Kill()
		o = testOptions(fs)
		o.BootID = boot
		l = startLog(t, o, 3)
		if got := fmt.Sprint(l.contents()); got != "[1:1=1 3:9=9]" {
			t.Fatalf("%s: %s", boot, got)
		}
		if !l.Contains(old) || l.Contains(Barrier{LogID{1}, old.Seq, old.Chain + 1}) || l.Contains(Barrier{LogID{4}, old.Seq, old.Chain}) {
			t.Fatal("barrier of another log taken for one of this")
		}
	}
	l.close()
}

func TestForeignVolume(t *testing.T) {
	fs := vfs.NewCrash()
	l := startLog(t, testOptions(fs), 1)
	l.write(1, 1, true)
	l.close()
	o := testOptions(fs)
	o.Volume[0]++
	if _, err := Open(o); !errors.Is(err, ErrForeign) {
		t.Errorf("got %v", err)
	}
}

// TestOpenWaitsForDirectIO: before the records of any segment are read, or anything is written, each segment's file has been
// asked to wait for the direct I/O that a killed process may have left in flight.
func TestOpenWaitsForDirectIO(t *testing.T) {
	crash := vfs.NewCrash()
	l := startLog(t, testOptions(crash), 1)
	l.writeBlocks(3 * 14)
	l.flush()
	l.Kill(ErrClosed)
	l.wg.Wait()
	waited, reads := map[string]bool{}, map[string]int{}
	fault := vfs.NewFault(crash.Kill())
	fault.Before(func(op vfs.Op, name string) error {
		switch {
		case !strings.HasSuffix(name, ".seg"):
		case op == vfs.OpAllocate:
			waited[name] = true
		case op == vfs.OpRead && reads[name] == 0:
			reads[name]++ // its header
		case op == vfs.OpRead && len(waited) < 3, op == vfs.OpWrite:
			t.Errorf("%v %s while direct I/O may be in flight; waited for it in %v", op, name, waited)
		}
		return nil
	})
	openLog(t, testOptions(fault)).close()
	if len(reads) < 3 || len(waited) != len(reads) {
		t.Errorf("read %v, waited for %v", reads, waited)
	}
}

func TestDropThrough(t *testing.T) {
	fs := vfs.NewCrash()
	l := startLog(t, testOptions(fs), 1)
	for i := range uint64(40) {
		l.write(i, i, true)
	}
	l.flush()
	l.Kill(errors.New("power cut"))
	l.wg.Wait()
	o := testOptions(fs.Kill())
	o.BootID = "boot-2"
	l = openLog(t, o)
	if err := l.DropThrough(38); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(LogID{2}); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(l.contents()); got != "[39:38=38 40:39=39]" {
		t.Error(got)
	}
	if bytes, writes := l.Unsettled(); bytes != 2*blockSize || writes != 2 {
		t.Errorf("unsettled %d bytes, %d writes", bytes, writes)
	}
	l.settleAll()
	l.close()
	if names, _ := o.FS.List(testDir); fmt.Sprint(names) != "[head spare]" {
		t.Errorf("left behind: %v", names)
	}
}
