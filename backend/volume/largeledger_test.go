package volume

import (
	"context"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/vfs"
)

// bill counts requests by what they are for, and forgets packs that no manifest names any more.
type bill struct {
	*mem.Store
	mu                            sync.Mutex
	packs, pages, manifests, gets int64 // requests
	putBytes, getBytes, largest   int64 // largest: of the manifests
}

func (b *bill) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	body, in, err := b.Store.Get(ctx, key, r)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gets++
	b.getBytes += int64(len(body))
	return body, in, err
}

func (b *bill) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch strings.SplitN(key, "/", 2)[0] {
	case "packs":
		b.packs++
	case "maps":
		b.pages++
	default:
		b.manifests++
		b.largest = max(b.largest, int64(len(body)))
	}
	b.putBytes += int64(len(body))
	return b.Store.Put(ctx, key, body, c)
}

// sweep deletes the packs that the manifest does not name, so that the test's memory holds the disk and no history.
func (b *bill) sweep(t *testing.T, v *Volume) {
	live := map[string]bool{}
	vw := v.currentView()
	for _, s := range vw.tail {
		live[s.ref.Hash.Key()] = true
	}
	for _, l := range vw.man.Levels {
		packs, err := v.refs(t.Context(), l, 0, ^uint64(0), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range packs {
			live[s.ref.Hash.Key()] = true
		}
	}
	for in := range b.List(t.Context(), "packs/", "") {
		if !live[in.Key] {
			_ = b.Delete(t.Context(), in.Key)
		}
	}
}

// unsynced is the local disk without the time that syncs take, which have no part in the bill.
type unsynced struct{ vfs.FS }

type unsyncedFile struct{ vfs.File }

func (u unsynced) SyncDir(string) error { return nil }
func (unsyncedFile) Sync() error        { return nil }

func (u unsynced) Create(name string) (vfs.File, error) {
	f, err := u.FS.Create(name)
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}

func (u unsynced) Open(name string) (vfs.File, error) {
	f, err := u.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}

// TestLedgerOfALargeDisk: what 100 GiB of random 4 KiB writes to a disk of 10 TiB cost, at 1:scale. Everything that decides
// how many packs there are and how often one is rewritten is scaled alike: the disk, what is written, the batch, the first
// level. So the packs, pages and manifests are as many as at full scale, their names, and with them manifests and pages, as
// large, and the bytes a scale'th. The one thing that can't be scaled is how much of a pack one request of a merge fetches
// (fetchBytes); these requests are counted by their bytes, and one for each pack's index added, which at full scale don't all
// stay in memory.
func TestLedgerOfALargeDisk(t *testing.T) {
	const scale = 512
	written := int64(100 << 30)
	if testing.Short() {
		written /= 16
	}
	r, b := newRig(unsynced{vfs.OS()}, t.TempDir()), &bill{Store: mem.New()}
	r.st, r.log, r.cache = b, 4<<20, 4<<20
	r.tuning = Tuning{SegmentBytes: 64 << 10, BatchBytes: 30 << 20 / scale, LevelBytes: 4 << 30 / scale}
	v := r.open(t, "a", OpenOptions{Create: 10 << 40 / scale})
	defer r.kill(v, false)
	rng := rand.New(rand.NewPCG(1, 2))
	sectors, batch := v.Size()/4096, r.tuning.BatchBytes/4096
	for n := int64(0); n < written/scale/4096; {
		for range batch {
			if err := v.WriteAt(t.Context(), blockOf(int(n), 1), rng.Int64N(sectors)*4096, false); err != nil {
				t.Fatal(err)
			}
			n++
		}
		mustSync(t, v)
		if v.compactNow(t); n/batch%64 == 0 {
			b.sweep(t, v)
		}
	}
	var ms runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&ms)
	gets := b.getBytes*scale/fetchBytes + b.packs
	puts := b.packs + b.pages + b.manifests
	dollars := (float64(puts)*5e-6 + float64(gets)*0.4e-6) * (1 << 40) / float64(written)
	t.Logf("requests: %d packs, %d map pages, %d manifests put, %d gets (%d at this scale); %.2f USD a TiB at S3's prices",
		b.packs, b.pages, b.manifests, gets, b.gets, dollars)
	t.Logf("bytes: %.2f put and %.2f got for each written; largest manifest %d, disk in the store %.1f GiB at full scale, %d levels",
		float64(b.putBytes)*scale/float64(written), float64(b.getBytes)*scale/float64(written), b.largest,
		float64(v.Status().UploadedSize)*scale/(1<<30), len(v.currentView().man.Levels))
	t.Logf("memory: heap of %d MiB with the store in it", ms.HeapAlloc>>20)
	if put := float64(b.putBytes) * scale / float64(written); put > 15 || b.largest > 16<<10 || puts > 80_000 || dollars > 15 {
		t.Error("more than it was")
	}
}
