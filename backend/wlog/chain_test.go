package wlog

import (
	"errors"
	"strings"
	"testing"

	"glidefs-appliance/backend/vfs"
)

// forgeRecord makes the record in a slot one that is whole, but was not written after the one before it.
func forgeRecord(t *testing.T, fs *vfs.Crash, segment int, slot int64) {
	t.Helper()
	f, err := fs.Open(segmentFile(segment))
	if err != nil {
		t.Fatal(err)
	}
	var p [recordSize]byte
	if _, err := f.ReadAt(p[:], blockSize+slot*recordSize); err != nil {
		t.Fatal(err)
	}
	var r Record
	if !r.decode(p[:]) {
		t.Fatalf("no record in slot %d", slot)
	}
	r.First++
	r.encode(p[:], 12345, &LogID{1})
	if _, err := f.WriteAt(p[:], blockSize+slot*recordSize); err != nil {
		t.Fatal(err)
	}
}

// TestChainIsFollowed: a record that is whole by itself, in its place and with the right seq, but part of another history, is
// damage where nothing may be missing, and the end of the log after a power cut.
func TestChainIsFollowed(t *testing.T) {
	for name, tt := range map[string]struct {
		slot   int64
		reboot bool
		damage bool
	}{
		"killed":                       {12, false, true},
		"cut, beyond what was durable": {12, true, false},
		"cut, what was durable":        {3, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewCrash()
			l := startLog(t, testOptions(fs), 1)
			for i := range uint64(14) {
				l.write(i, i, true)
				if i == 9 {
					l.flush()
				}
			}
			if err := l.writeHead(l.DurableSeq(), false); err != nil {
				t.Fatal(err)
			}
			l.Kill(errors.New("killed"))
			l.wg.Wait()
			o := testOptions(fs.Kill())
			forgeRecord(t, o.FS.(*vfs.Crash), 0, tt.slot)
			if tt.reboot {
				o.BootID = "boot-2"
			}
			again, err := Open(o)
			const reason = "its checksum does not continue that of the record before it"
			if tt.damage {
				if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), reason) {
					t.Errorf("got %v, want damage: %s", err, reason)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			if end := again.End().Seq; end != uint64(tt.slot) {
				t.Errorf("the log ends at %d, want %d", end, tt.slot)
			}
		})
	}
}
