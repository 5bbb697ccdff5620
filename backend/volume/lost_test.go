package volume

import (
	"math/rand/v2"
	"testing"
	"time"

	"glidefs-appliance/backend/vfs"
)

// TestLostMachine loses the machine after every change of the store in random runs, between the PUT of a pack and that of
// the manifest too, and opens the disks elsewhere (P4): each is exactly as some prefix of its requests has left it, at or
// after the last barrier that Status had shown, and at or after the instant that the manifest names.
func TestLostMachine(t *testing.T) {
	eachSeed(t, 4*time.Second, func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 1))
		l := firstLife(t, rng, 512, 512) // of 32 KiB: no request is cut in parts
		shown := make([][]promise, len(l.disks))
		acks := make([][]time.Time, len(l.disks))
		for i, d := range l.disks {
			acks[i] = []time.Time{{}}
			d.seqs = []uint64{0}
		}
		for range 300 {
			i := rng.IntN(len(l.disks))
			l.step(l.disks[i])
			for i, d := range l.disks {
				if len(d.seqs) == d.last() {
					acks[i], d.seqs = append(acks[i], time.Now()), append(d.seqs, d.v.log.LastSeq())
				}
				shown[i] = append(shown[i], d.shown(l.st))
			}
		}
		for _, d := range l.disks {
			mustSync(l, d.v)
		}
		l.end()
		for j := range l.st.snapshot() {
			lost(l, j+1, func(i, m int, s Status) {
				if least := latest(shown[i], j+1, 0); m < least {
					t.Fatalf("after change %d of the store %s is as after request %d; Status had shown %d", j, s.Name, m, least)
				}
				for n, at := range acks[i] {
					if n > m && at.Before(s.BarrierTime) {
						t.Fatalf("after change %d of the store %s is as after request %d; %d was acknowledged before its instant", j, s.Name, m, n)
					}
				}
			})
		}
	})
}

// shown is the request that the barrier in Status stands for, and how many changes the store has had then. Status first:
// an upload may end in between.
func (d *lived) shown(st *journal) promise {
	barrier, m := d.v.Status().BarrierSeq, 0
	for m+1 < len(d.seqs) && d.seqs[m+1] <= barrier {
		m++
	}
	return promise{len(st.snapshot()), m}
}

// lost opens the disks of the first n changes of l's store on another machine.
func lost(l *life, n int, check func(i, m int, s Status)) {
	objects := objects(l.st.snapshot()[:n])
	fs := vfs.NewCrash()
	r := crashRig(fs, newJournal(objects, fs.Ops), "other")
	r.state++
	r.start(l)
	defer r.c.Close()
	for i, d := range l.disks {
		if objects["volumes/"+d.name+"/manifest"] == nil {
			continue
		}
		v := r.open(l, d.name, OpenOptions{Takeover: true})
		got, err := (&disk{v: v}).content()
		if err != nil {
			l.Fatalf("read %s elsewhere: %v", d.name, err)
		}
		m, err := d.match(got, 0, d.last(), true)
		if err != nil {
			l.Fatalf("elsewhere, after change %d of the store: %v", n, err)
		}
		check(i, m, v.Status())
		v.Kill(ErrClosed)
	}
}
