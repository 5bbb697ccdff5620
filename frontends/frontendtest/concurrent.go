package frontendtest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// testConcurrent runs workers that each own a stripe of the disk and know what is in it. On files the stripes meet in
// the middle of a sector, so that neighbours rewrite the same edge sectors all the time.
func testConcurrent(t *testing.T, s suite) {
	const workers, rounds = 8, 150
	b := newBed(t, s, 4*mib)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	h := open(t, b.path, 0)
	if h.block {
		h = open(t, b.path, unix.O_DIRECT)
	}
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() { errs[i] = newWorker(h, b.model, i, workers, seed).run(rounds) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	b.check(h)
}

type worker struct {
	h     *handle
	rng   *rand.Rand
	base  int64
	model []byte // its stripe of the bed's model
	buf   []byte
}

func newWorker(h *handle, model []byte, i, of int, seed uint64) *worker {
	width := int64(len(model) / of)
	from, to := int64(i)*width, int64(i+1)*width
	if !h.block {
		from, to = from+int64(min(i, 1))*101, to+101
		to = min(to, int64(len(model)))
	}
	return &worker{h: h, rng: rand.New(rand.NewPCG(seed, uint64(i))), base: from, model: model[from:to], buf: alignedBuf(int(width) + 101)}
}

func (w *worker) run(rounds int) error {
	for range rounds {
		off, n := w.pick()
		if err := w.step(off, n); err != nil {
			return fmt.Errorf("[%d, +%d): %w", w.base+off, n, err)
		}
	}
	return nil
}

// pick chooses a range in the stripe; most are short.
func (w *worker) pick() (off, n int64) {
	size := int64(len(w.model))
	off = w.rng.Int64N(size)
	n = 1 + w.rng.Int64N(size-off)
	if w.rng.IntN(4) > 0 {
		n = min(n, 1+w.rng.Int64N(3*4096))
	}
	off, n = w.h.align(off, n)
	return off, min(n, size-off)
}

func (w *worker) step(off, n int64) error {
	at, p, want := w.base+off, w.buf[:n], w.model[off:off+n]
	switch w.rng.IntN(10) {
	case 0:
		clear(want)
		return w.h.discard(at, n)
	case 1:
		clear(want)
		return w.h.zero(at, n)
	case 2:
		return w.h.Sync()
	case 3, 4, 5:
		if _, err := w.h.ReadAt(p, at); err != nil {
			return err
		}
		if !bytes.Equal(p, want) {
			return errors.New("read other bytes than were written last")
		}
		return nil
	}
	for i := range p {
		p[i] = byte(w.rng.Uint32())
	}
	copy(want, p)
	_, err := w.h.WriteAt(p, at)
	return err
}
