package volume

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/vfs"
)

// ledger counts what a store is asked for.
type ledger struct {
	store.Store
	requests, puts, manifestMax atomic.Int64
	bytes                       atomic.Int64
}

func (l *ledger) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	l.requests.Add(1)
	return l.Store.Get(ctx, key, r)
}

func (l *ledger) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	l.requests.Add(1)
	l.puts.Add(1)
	l.bytes.Add(int64(len(body)))
	if strings.HasSuffix(key, "/manifest") && int64(len(body)) > l.manifestMax.Load() {
		l.manifestMax.Store(int64(len(body)))
	}
	return l.Store.Put(ctx, key, body, c)
}

func (l *ledger) Now(ctx context.Context) (time.Time, error) {
	l.requests.Add(1)
	return l.Store.Now(ctx)
}

// Many disks that trickle, in virtual time: what they cost in requests, bytes and manifest size has a bound, and when
// they fall idle they cost nothing.
func TestLedgerOfTricklingDisks(t *testing.T) {
	const disks, minutes = 60, 10
	synctest.Test(t, func(t *testing.T) {
		r := newRig(vfs.NewCrash(), "/state")
		l := &ledger{Store: mem.New()}
		r.st, r.log, r.tuning = l, 64<<20, Tuning{SegmentBytes: 64 << 10}
		var vols []*Volume
		for i := range disks {
			vols = append(vols, r.open(t, fmt.Sprintf("d%d", i), OpenOptions{Create: 64 << 20}))
		}
		if n := l.requests.Load(); n != 2*disks {
			t.Errorf("%d disks were made with %d requests: want a look and a PUT each", disks, n)
		}
		l.requests.Store(0)
		written := int64(0)
		for tick := range minutes * 60 / 5 {
			for i, v := range vols {
				p := blockOf(tick, i)
				if err := v.WriteAt(context.Background(), p, int64((tick*7919+i)%16384)*4096, false); err != nil {
					t.Fatal(err)
				}
				written += 4096
			}
			time.Sleep(5 * time.Second) // virtual
		}
		perMinute := float64(l.requests.Load()) / disks / minutes
		t.Logf("%.1f requests a disk and minute, %.2f bytes sent a byte written, largest manifest %d bytes",
			perMinute, float64(l.bytes.Load())/float64(written), l.manifestMax.Load())
		if perMinute > 8 { // one upload in 10 s rides in the manifest; a pack now and then
			t.Errorf("%.1f requests a disk and minute", perMinute)
		}
		if n := l.manifestMax.Load(); n > 100<<10 {
			t.Errorf("a manifest has %d bytes", n)
		}
		for _, v := range vols {
			mustSync(t, v)
		}
		synctest.Wait()
		l.requests.Store(0)
		time.Sleep(time.Hour) // virtual
		if n := l.requests.Load(); n != 0 {
			t.Errorf("%d requests in an idle hour", n)
		}
		for _, v := range vols {
			if _, err := manifest.Read(context.Background(), l.Store, v.Name()); err != nil {
				t.Error(err)
			}
			v.Kill(ErrClosed)
		}
		_ = r.c.Close()
	})
}

// blockOf is 4 KiB that does not compress, different for every tick and disk.
func blockOf(tick, disk int) []byte {
	p := make([]byte, 4096)
	x := uint64(tick)<<32 | uint64(disk) | 1
	for i := range p {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		p[i] = byte(x)
	}
	return p
}
