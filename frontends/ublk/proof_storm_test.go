package ublk

import (
	"context"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
	"glidefs-appliance/backend/volume"

	"golang.org/x/sys/unix"
)

const (
	stormReaders = 100 // more than one worker's buffers for long requests, less than one queue's tags
	stormFrame   = 128 << 10
	stormBytes   = stormReaders * stormFrame
)

// storm is a cold disk behind a slow store, and a hot one beside it.
type storm struct {
	h         *volume.Host
	s         *Server
	fault     *storetest.Fault
	cold, hot *area
	version   uint64
}

// TestColdStorm: a hundred readers want a hundred different frames that only the store has. While it answers none of
// them, another disk, and what is hot on the same disk, is read, written and flushed as if nothing were the matter. Then
// it answers slowly, and all readers go on at random places: each byte is right.
func TestColdStorm(t *testing.T) {
	eachMode(t, func(t *testing.T, zeroCopy bool) {
		m := newStorm(t, zeroCopy)
		defer m.cold.f.Close()
		defer m.hot.f.Close()
		gate := m.fault.Gate(storetest.On(store.OpGet, "packs/"))
		var readers sync.WaitGroup
		before, goOn := m.s.Stats(), make(chan struct{})
		for i := range stormReaders {
			readers.Go(func() { m.reader(t, i, goOn) })
		}
		awaitThat(t, "all readers wait for the store", func() bool { return m.s.Stats().Deferred >= before.Deferred+stormReaders })
		if n := m.s.Stats().BufferWait; n == before.BufferWait {
			t.Error("the cold reads got all the buffers they wanted")
		}
		for i := range 200 {
			m.others(t, i)
		}
		m.fault.Always(storetest.On(store.OpGet, "packs/"), storetest.Slow(20*time.Millisecond))
		gate.Open()
		close(goOn)
		stop, hot := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(hot)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					m.others(t, i)
				}
			}
		}()
		readers.Wait()
		close(stop)
		<-hot
		t.Logf("%d requests to the store, %+v", m.fault.Count(store.OpGet), m.s.Stats())
	})
}

func newStorm(t *testing.T, zeroCopy bool) *storm {
	m := &storm{fault: storetest.NewFault(mem.New()), s: openServer(t, zeroCopy)}
	m.h = tightEngine(t, stateDir(t), 8<<20, 0, volume.Tuning{SegmentBytes: 256 << 10, UploadAge: time.Hour, ReadTimeout: 10 * time.Minute, Readahead: 4096})
	behind(m.h, m.fault)
	cold, hot := openVolume(t, m.h, "cold", 64<<20, 4096), openVolume(t, m.h, "hot", 8<<20, 4096)
	open := func(v *volume.Volume) *os.File { return openDirect(t, serve(t, m.s, v.Name(), v).Path()) }
	m.cold, m.hot = newArea(open(cold), 1, 0, 64<<20/4096), newArea(open(hot), 2, 0, 64)
	p := alignedBytes(t, stormFrame)
	for off := 0; off < 2*stormBytes; off += stormFrame { // the second half pushes the first one out of the log
		m.write(t, m.cold, p, off/4096)
		if err := cold.Sync(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
	}
	for block := 0; block < stormBytes/4096; block++ {
		if inLog(cold, m.cold.off(block)) {
			t.Fatalf("block %d is in the log", block)
		}
	}
	m.write(t, m.cold, p, 2*stormBytes/4096)
	m.write(t, m.hot, p, 0)
	return m
}

func (m *storm) write(t *testing.T, a *area, p []byte, block int) {
	t.Helper()
	m.version++
	if err := a.write(p, block, m.version); err != nil {
		t.Fatal(err)
	}
}

// reader reads its own frame, then anything.
func (m *storm) reader(t *testing.T, i int, goOn chan struct{}) {
	p, err := anonymous(stormFrame)
	if err != nil {
		t.Error(err)
		return
	}
	defer munmap(p)
	if err := m.cold.read(p[:4096], i*stormFrame/4096); err != nil {
		t.Error(err)
	}
	<-goOn
	rng := rand.New(rand.NewPCG(uint64(i), 5))
	for range 10 {
		n := 1 + rng.IntN(stormFrame/4096)
		if err := m.cold.read(p[:n*4096], rng.IntN(stormBytes/4096-n)); err != nil {
			t.Error(err)
			return
		}
	}
}

// others is what goes on meanwhile: on the hot disk, and where the cold one is hot.
func (m *storm) others(t *testing.T, i int) {
	p, err := anonymous(16 << 10)
	if err != nil {
		t.Error(err)
		return
	}
	defer munmap(p)
	for _, at := range []struct {
		a     *area
		block int
	}{{m.hot, i % 28}, {m.cold, 2*stormBytes/4096 + i%28}} {
		m.version++
		if err := at.a.write(p, at.block, m.version); err != nil {
			t.Error(err)
		}
		if err := at.a.read(p, at.block); err != nil {
			t.Error(err)
		}
	}
	if i%10 == 0 {
		if err := unix.Fdatasync(int(m.hot.f.Fd())); err != nil {
			t.Error(err)
		}
	}
}
