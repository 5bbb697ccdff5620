package ublk

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
	"glidefs-appliance/backend/volume"
)

// evicting is a disk whose log holds two small segments, so that what was written is soon in the store only. Its first
// blocks are the hot ones; ballast behind them pushes them out.
type evicting struct {
	v            *volume.Volume
	fault        *storetest.Fault
	hot, ballast *area
	mem          []byte
	version      uint64
	rng          *rand.Rand
}

const (
	evictRounds  = 256
	hotBlocks    = 32
	ballastBytes = 56 << 10
)

// TestEvicted: blocks that have just been given up by the log are read and overwritten at once. In every other round the
// first read from the store is held until those that were overwritten meanwhile have been uploaded and evicted again. No
// reader sees another block, half a block, or a version that was overwritten before it asked.
func TestEvicted(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		h := tightEngine(t, stateDir(t), 0, 512<<10, volume.Tuning{SegmentBytes: 64 << 10, BatchBytes: 256 << 10, InlineBytes: 1})
		e := &evicting{fault: storetest.NewFault(mem.New()), rng: rand.New(rand.NewPCG(1, 2)), mem: alignedBytes(t, hotBlocks*4096)}
		behind(h, e.fault)
		e.v = openVolume(t, h, "disk", 8<<20, 4096)
		s := openServer(t, zeroCopy)
		f := openDirect(t, serve(t, s, "disk", e.v).Path())
		defer f.Close()
		e.hot, e.ballast = newArea(f, 1, 0, hotBlocks), newArea(f, 1, 1024, 1024)
		for round := range evictRounds {
			e.round(t, round%2 == 1)
			if t.Failed() {
				t.Fatalf("in round %d", round)
			}
		}
		t.Logf("%d rounds, %d batches, %d cold reads, %+v", evictRounds, h.Counters().Batches, e.coldReads(), s.Stats())
		if e.coldReads() < evictRounds/4 {
			t.Errorf("only %d reads found the store", e.coldReads())
		}
	})
}

func (e *evicting) coldReads() int {
	counts := e.fault.Counts()
	return counts[store.Guest][store.OpGet]
}

func (e *evicting) next() uint64 {
	e.version++
	return e.version
}

// round writes some hot blocks, has them evicted, and lets readers and a writer meet there.
func (e *evicting) round(t *testing.T, held bool) {
	block, n := e.hot.run(e.rng, 6)
	if err := e.hot.write(e.mem[:n*4096], block, e.next()); err != nil {
		t.Fatal(err)
	}
	e.evict(t)
	var gate *storetest.Gate
	first := make(chan struct{})
	if held {
		gate = e.fault.Gate(func(q storetest.Request) bool { return q.Op == store.OpGet && q.Class == store.Guest })
	}
	var readers sync.WaitGroup
	for i := range 3 {
		rng := rand.New(rand.NewPCG(e.version, uint64(i)))
		readers.Go(func() { e.readers(t, rng, first) })
	}
	if held {
		done := make(chan struct{})
		go func() { readers.Wait(); close(done) }()
		close(first)
		select {
		case one := <-gate.C:
			e.overwrite(t)
			e.evict(t)
			one.Release()
			gate.Open()
		case <-done: // all was in the clean cache
			gate.Open()
		}
	} else {
		close(first)
		e.overwrite(t)
	}
	readers.Wait()
	if err := e.hot.read(e.mem[:hotBlocks*4096], 0); err != nil {
		t.Error(err)
	}
}

func (e *evicting) readers(t *testing.T, rng *rand.Rand, first chan struct{}) {
	p, err := anonymous(hotBlocks * 4096)
	if err != nil {
		t.Error(err)
		return
	}
	defer munmap(p)
	<-first
	for range 3 {
		block, n := e.hot.run(rng, hotBlocks)
		if err := e.hot.read(p[:n*4096], block); err != nil {
			t.Error(err)
		}
	}
}

// overwrite gives some hot blocks new versions, with requests of any length.
func (e *evicting) overwrite(t *testing.T) {
	t.Helper()
	for range 3 {
		block, n := e.hot.run(e.rng, 4)
		if err := e.hot.write(e.mem[:n*4096], block, e.next()); err != nil {
			t.Error(err)
		}
	}
}

// evict pushes all hot blocks out of the log, which uploads when it is full.
func (e *evicting) evict(t *testing.T) {
	t.Helper()
	for i := range 64 {
		block := e.rng.IntN(len(e.ballast.done)/14) * 14
		if err := e.ballast.write(e.mem[:ballastBytes], block, e.next()); err != nil {
			t.Fatal(err)
		}
		if i%4 == 3 {
			if err := e.v.Sync(context.Background(), nil); err != nil {
				t.Fatal(err)
			}
		}
		if !e.anyInLog() {
			return
		}
	}
	t.Fatal("the log holds hot blocks whatever is written after them")
}

func (e *evicting) anyInLog() bool {
	for i := range hotBlocks {
		if inLog(e.v, e.hot.off(i)) {
			return true
		}
	}
	return false
}
