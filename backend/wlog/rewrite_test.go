package wlog

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"glidefs-appliance/backend/vfs"
)

var errMedium = errors.New("medium error")

// failSyncs makes syncs of segments fail as the kernel's do: what they were about is forgotten.
func failSyncs(fault *vfs.Fault, fs *vfs.Crash) {
	fault.Before(func(op vfs.Op, name string) error {
		if op != vfs.OpSync || !strings.HasSuffix(name, ".seg") {
			return nil
		}
		return errors.Join(errMedium, fs.FailSync(name))
	})
}

// end is kill -9.
func (l *testLog) end(fs *vfs.Crash) *vfs.Crash {
	l.Kill(errMedium)
	l.wg.Wait()
	return fs.Kill()
}

// unsynced is what a process leaves that was killed after a flush, then 20 more writes, then a flush that failed.
func unsynced(t *testing.T, sum bool) (fs *vfs.Crash, want []string) {
	fs = vfs.NewCrash()
	fault := vfs.NewFault(fs)
	l := startLog(t, testOptions(fault), 1)
	for i := range uint64(40) {
		l.write(i, i, sum)
		if i == 19 {
			l.flush()
		}
	}
	want = l.contents()
	failSyncs(fault, fs)
	if err := l.Flush(); !errors.Is(err, errMedium) {
		t.Fatal(err)
	}
	return l.end(fs), want
}

// TestFailedSyncOutlivesTheProcess: after a failed sync, and without anybody's note of it, the next process under the same
// boot says that the data is durable only once it is.
func TestFailedSyncOutlivesTheProcess(t *testing.T) {
	for _, sum := range []bool{true, false} {
		fs, want := unsynced(t, sum)
		l := startLog(t, testOptions(fs), 2)
		l.flush()
		fs = l.end(fs)
		for seed := range uint64(20) {
			o := testOptions(fs.CutAt(fs.Ops(), rand.New(rand.NewPCG(seed, 1))))
			o.BootID = "boot-2"
			if got := openLog(t, o).contents(); !slices.Equal(got, want) {
				t.Fatalf("sum %t, after a power cut:\n%v\nwant\n%v", sum, got, want)
			}
		}
	}
}

// TestFailedSyncOfANewLife: the same where the segment was used before, and not even its header had been synced in its new
// life.
func TestFailedSyncOfANewLife(t *testing.T) {
	fs := vfs.NewCrash()
	fault := vfs.NewFault(fs)
	o := testOptions(fault)
	o.Budget = NewBudget(2 * minSegment)
	l := startLog(t, o, 1)
	l.fill()
	l.settleAll()
	failSyncs(fault, fs)
	l.write(1, 1, true)
	want := l.contents()
	if err := l.Flush(); !errors.Is(err, errMedium) {
		t.Fatal(err)
	}
	fs = l.end(fs)
	o.FS = fs
	l = startLog(t, o, 2)
	l.flush()
	fs = l.end(fs)
	for seed := range uint64(20) {
		o.FS, o.BootID = fs.CutAt(fs.Ops(), rand.New(rand.NewPCG(seed, 1))), "boot-2"
		if got := openLog(t, o).contents(); !slices.Equal(got, want) {
			t.Fatalf("after a power cut: %v, want %v", got, want)
		}
	}
}

// TestSyncThatFailsAgain: a disk that stays bad keeps the log from starting, and nothing is lost by trying.
func TestSyncThatFailsAgain(t *testing.T) {
	fs, want := unsynced(t, true)
	for range 3 {
		fault := vfs.NewFault(fs)
		failSyncs(fault, fs)
		l := openLog(t, testOptions(fault))
		if err := l.Start(LogID{2}); !errors.Is(err, errMedium) {
			t.Fatal(err)
		}
		fs = l.end(fs)
	}
	if got := startLog(t, testOptions(fs), 3).contents(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestDroppedPages: data that the kernel has not only forgotten to write but dropped is not brought to the disk as if it
// were the writer's.
func TestDroppedPages(t *testing.T) {
	fs, _ := unsynced(t, true)
	wipeData(1, 10)(t, fs)
	l := openLog(t, testOptions(fs))
	if err := l.Start(LogID{2}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "record 25") {
		t.Errorf("start: %v", err)
	}
}
