package wlog

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"glidefs-appliance/backend/vfs"
)

var crashSeed = flag.Uint64("crash.seed", 0, "run only this seed of TestPowerCut")

// trace is what a run promised, and when: at is a number of changes of the file system.
type trace struct {
	records   map[uint64]string // by seq: what was appended
	committed []promise         // survives the process from then on
	flushed   []promise         // survives a power cut from then on
	settled   []promise         // the head may say so from then on
}

type promise struct {
	at  int
	seq uint64
}

func reached(ps []promise, at int) uint64 {
	var seq uint64
	for _, p := range ps {
		if p.at <= at {
			seq = max(seq, p.seq)
		}
	}
	return seq
}

// workload drives a log with random requests.
type workload struct {
	t     testing.TB
	rng   *rand.Rand
	fs    *vfs.Crash
	boot  string
	l     *testLog
	stamp *uint64
	trace trace
	refs  []heldRef
	slow  []Span // a write that takes long: others go beside it
	lives int
}

// heldRef is a reader that checks at the end that its block did not change under it.
type heldRef struct {
	seg  *Segment
	off  int64
	want []byte
}

func crashOptions(fs vfs.FS, boot string) Options {
	o := testOptions(fs)
	o.BootID, o.Budget = boot, NewBudget(5*minSegment)
	return o
}

func (w *workload) open() {
	w.lives++
	w.l = openLog(w.t, crashOptions(w.fs, w.boot))
	if err := w.l.Start(LogID{byte(w.rng.Uint32()), byte(w.rng.Uint32()), byte(w.rng.Uint32()), byte(w.lives)}); err != nil {
		w.t.Fatal(err)
	}
}

// run does n random requests. Room is made by settling, as an uploader does.
func (w *workload) run(n int) {
	w.open()
	for range n {
		switch k := w.rng.IntN(100); {
		case k < 60:
			w.write(w.rng.IntN(5) > 0)
		case k < 66:
			w.zero()
		case k < 84:
			w.flush()
		case k < 91:
			w.settle()
		case k < 94:
			w.hold()
		case k < 97:
			w.release()
		case k < 99:
			w.kill()
			w.open()
		default:
			w.release()
			w.l.close()
			w.open()
		}
	}
	w.kill()
}

// kill ends the process: what it has written stays in the page cache, and its background work has ended.
func (w *workload) kill() {
	w.release()
	w.l.Kill(errors.New("killed"))
	w.l.wg.Wait()
	w.fs = w.fs.Kill()
}

// write is one request of a few blocks; each span gets a record.
func (w *workload) write(sum bool) {
	spans := w.reserve(int64(1+w.rng.IntN(6)) * blockSize)
	var recs []Record
	var contents []string
	for i, s := range spans {
		*w.stamp++
		n := s.Len / blockSize
		var p []byte
		for range n {
			p = append(p, block(uint64(w.rng.IntN(100)), *w.stamp)...)
		}
		if err := s.Seg.WriteAt(p, s.Off); err != nil {
			w.t.Fatal(err)
		}
		r := Record{Kind: KindWrite, First: *w.stamp, Count: uint64(n)}
		if sum {
			r.Flags, r.Sum = FlagSum, Sum(p)
		}
		if i == len(spans)-1 {
			r.Flags |= FlagEnd
		}
		recs = append(recs, r)
		contents = append(contents, describe(&r, p))
	}
	if w.rng.IntN(20) == 0 {
		w.l.Abandon(spans) // the caller's move failed
		return
	}
	w.commit(recs, spans, contents)
}

func (w *workload) zero() {
	*w.stamp++
	r := Record{Kind: KindZero, Flags: FlagEnd, First: *w.stamp, Count: 8}
	w.commit([]Record{r}, w.reserve(0), []string{describe(&r, nil)})
}

func (w *workload) commit(recs []Record, spans []Span, contents []string) {
	last := w.l.Append(recs, spans)
	for i := range recs {
		w.trace.records[recs[i].Seq] = contents[i]
	}
	if err := w.l.Commit(last); err != nil {
		w.t.Fatal(err)
	}
	w.trace.committed = append(w.trace.committed, promise{w.fs.Ops(), last})
}

func (w *workload) reserve(n int64) []Span {
	for {
		if spans, ok := w.l.TryReserve(n, nil); ok {
			return spans
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		spans, err := w.l.Reserve(ctx, n, nil)
		cancel()
		if err == nil {
			return spans
		}
		w.release()
		w.settle()
	}
}

func (w *workload) flush() {
	last := w.l.LastSeq()
	w.l.flush()
	w.trace.flushed = append(w.trace.flushed, promise{w.fs.Ops(), last})
}

// settle moves the barrier to some record, mostly the newest.
func (w *workload) settle() {
	w.flush()
	var all []Barrier
	if err := w.l.Records(0, func(r Record, _ *Segment) error {
		all = append(all, w.l.barrierOf(&r))
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	if len(all) == 0 {
		return
	}
	b := all[len(all)-1]
	if w.rng.IntN(3) == 0 {
		b = all[w.rng.IntN(len(all))]
	}
	w.trace.settled = append(w.trace.settled, promise{w.fs.Ops(), b.Seq})
	if err := w.l.Settle(b); err != nil {
		w.t.Fatal(err)
	}
	if !w.l.Contains(b) {
		w.t.Fatalf("settled barrier %v is not in the log", b)
	}
}

// hold keeps a reader on some record's block; Records keeps its segment alive for the call. A writer that is slow comes too.
func (w *workload) hold() {
	if w.slow == nil {
		w.slow, _ = w.l.TryReserve(blockSize, nil)
	}
	_ = w.l.Records(0, func(r Record, s *Segment) error {
		if r.Kind == KindWrite && w.rng.IntN(4) == 0 {
			h := heldRef{w.l.Acquire(s.Number()), r.DataOff(), make([]byte, r.Len)}
			if err := s.ReadAt(h.want, h.off); err != nil {
				w.t.Fatal(err)
			}
			w.refs = append(w.refs, h)
			return errStop
		}
		return nil
	})
}

func (w *workload) release() {
	w.l.Abandon(w.slow)
	w.slow = nil
	for _, h := range w.refs {
		p := make([]byte, len(h.want))
		if err := h.seg.ReadAt(p, h.off); err != nil || !bytes.Equal(p, h.want) {
			w.t.Fatalf("segment %d changed under a reader: %v", h.seg.Number(), err)
		}
		h.seg.Release()
	}
	w.refs = nil
}

func describe(r *Record, data []byte) string {
	return fmt.Sprintf("%d %d+%d %d %08x", r.Kind, r.First, r.Count, r.Flags, Sum(data))
}

// recovered is a log as a later process finds it.
type recovered struct {
	settled, end uint64
	records      map[uint64]string
}

func recoverLog(fs *vfs.Crash, boot string) (recovered, error) {
	l, err := Open(crashOptions(fs, boot))
	if err != nil {
		return recovered{}, err
	}
	defer l.Close()
	got := recovered{l.Head().Settled.Seq, l.End().Seq, map[uint64]string{}}
	err = l.Records(0, func(r Record, s *Segment) error {
		data := make([]byte, r.Len)
		if err := s.ReadAt(data, r.DataOff()); err != nil {
			return err
		}
		if !l.Contains(l.barrierOf(&r)) {
			return fmt.Errorf("record %d is not contained", r.Seq)
		}
		got.records[r.Seq] = describe(&r, data)
		return nil
	})
	return got, err
}

// check compares a recovered log with what was promised by the time the power went or the process died.
func (tr *trace) check(got recovered, atLeast, settled uint64) error {
	if got.end < atLeast {
		return fmt.Errorf("log ends at %d, promised was %d", got.end, atLeast)
	}
	if got.settled > settled {
		return fmt.Errorf("settled is %d, asked for was only %d", got.settled, settled)
	}
	for seq, want := range tr.records {
		have, ok := got.records[seq]
		switch {
		case seq > got.settled && seq <= got.end && !ok:
			return fmt.Errorf("record %d (%s) is missing", seq, want)
		case ok && have != want:
			return fmt.Errorf("record %d is %s, was %s", seq, have, want)
		}
	}
	for seq, have := range got.records {
		if _, ok := tr.records[seq]; !ok {
			return fmt.Errorf("record %d (%s) was never written, or was dropped", seq, have)
		}
	}
	return nil
}

// TestPowerCut cuts the power, and kills the process, after every change that random runs make to the disk. At some of
// the cuts a second run goes on with what is left and is cut again, everywhere from the beginning of its recovery.
func TestPowerCut(t *testing.T) {
	if *crashSeed != 0 {
		powerCut(t, *crashSeed)
		return
	}
	deadline := time.Now().Add(6 * time.Second)
	for n := 0; n < 3 || time.Now().Before(deadline); n++ {
		powerCut(t, rand.Uint64())
	}
}

func powerCut(t *testing.T, seed uint64) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("seed: -crash.seed=%d", seed)
		}
	}()
	rng := rand.New(rand.NewPCG(seed, 1))
	var stamp uint64
	w := &workload{t: t, rng: rng, fs: vfs.NewCrash(), boot: "boot-1", stamp: &stamp, trace: trace{records: map[uint64]string{}}}
	w.run(120)
	w.cutEverywhere(0, func(k int, got recovered) {
		if rng.IntN(40) == 0 {
			w.goOn(k, got)
		}
	})
}

// cutEverywhere checks every point of the run; promises below atLeast are from before it.
func (w *workload) cutEverywhere(atLeast uint64, then func(k int, got recovered)) {
	w.t.Helper()
	for k := range w.fs.Ops() + 1 {
		settled := reached(w.trace.settled, k)
		if got, err := recoverLog(w.fs.KillAt(k), w.boot); err != nil {
			w.t.Fatalf("kill after change %d: %v", k, err)
		} else if err := w.trace.check(got, max(atLeast, reached(w.trace.committed, k)), settled); err != nil {
			w.t.Fatalf("kill after change %d: %v", k, err)
		}
		got, err := recoverLog(w.fs.CutAt(k, w.rng), "another boot")
		if err != nil {
			w.t.Fatalf("cut after change %d: %v", k, err)
		}
		if err := w.trace.check(got, max(atLeast, reached(w.trace.flushed, k)), settled); err != nil {
			w.t.Fatalf("cut after change %d: %v", k, err)
		}
		then(k, got)
	}
}

// goOn starts the machine again after a cut and cuts the power once more. What the first recovery dropped must not come
// back, and what it kept must stay.
func (w *workload) goOn(k int, first recovered) {
	w.t.Helper()
	next := &workload{t: w.t, rng: w.rng, fs: w.fs.CutAt(k, rand.New(rand.NewPCG(uint64(k), 2))), boot: "boot-2", stamp: w.stamp}
	first, err := recoverLog(next.fs, next.boot)
	if err != nil {
		w.t.Fatal(err)
	}
	next.trace = trace{records: first.records, settled: []promise{{0, first.settled}}}
	next.run(15)
	next.cutEverywhere(first.end, func(int, recovered) {})
}

// TestPowerCutIsFelt makes sure that the test above tests something: with syncs that do nothing it must fail.
func TestPowerCutIsFelt(t *testing.T) {
	fs := vfs.NewCrash()
	l := startLog(t, crashOptions(fs, "boot-1"), 1)
	l.write(1, 1, true)
	l.flush()
	l.write(2, 2, true)
	lost := 0
	for seed := range uint64(50) {
		got, err := recoverLog(fs.CutAt(fs.Ops(), rand.New(rand.NewPCG(seed, 0))), "boot-2")
		if err != nil || !slices.Contains([]uint64{1, 2}, got.end) {
			t.Fatalf("end %d: %v", got.end, err)
		}
		if got.end == 1 {
			lost++
		}
	}
	if lost == 0 || lost == 50 {
		t.Errorf("an unsynced write was lost in %d of 50 cuts", lost)
	}
}
