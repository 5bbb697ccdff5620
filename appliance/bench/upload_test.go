package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/open"
	"glidefs-appliance/backend/store/storetest"
	"glidefs-appliance/backend/volume"
)

// opened is a store as the appliance opens it.
func opened(t testing.TB, url string) store.Store {
	t.Helper()
	impl, err := open.Open(url, open.Options{})
	must(t, err)
	return store.NewStack(impl, store.StackOptions{})
}

// TestUpload: bytes of the disk that reach a store in a second, against the time that compressing them and putting the
// result would take one after the other.
func TestUpload(t *testing.T) {
	gw := storetest.StartVersitygw(t)
	t.Run("dir", func(t *testing.T) { measureUpload(t, "file://"+t.TempDir(), "file://") })
	t.Run("s3", func(t *testing.T) { measureUpload(t, gw.URL, "versitygw") })
}

func measureUpload(t *testing.T, url, name string) {
	size := choose[int64](32<<20, 512<<20)
	st := opened(t, url)
	v := openDisk(t, host(t, st, logFor(size), volume.Tuning{UploadAge: time.Hour, NoCompaction: true}), "upload", size)
	data := halves(28 << 20)
	alone := func() float64 {
		perByte, stored := compress(t, data)
		return 1 / (perByte + stored*put(t, st, int(stored*float64(len(data)))))
	}
	s := turns(choose(1, 5), func() float64 { return upload(t, v, data) }, alone)
	report(row{What: "upload throughput to " + name, Unit: "MB/s", sides: s.scaled(1e-6), RefName: "1/(1/zstd + 1/PUT)", Must: 0.8})
}

// halves is data of which zstd saves about half.
func halves(n int) []byte {
	p, noise := make([]byte, n), rand.NewChaCha8([32]byte{5})
	for i := 0; i < n; i += 1024 {
		_, _ = noise.Read(p[i : i+512])
	}
	return p
}

// upload fills the disk, flushes it, and returns the bytes a second at which it reaches the store.
func upload(t testing.TB, v *volume.Volume, data []byte) float64 {
	t.Helper()
	ctx := context.Background()
	v.Pause(true)
	for off := int64(0); off < v.Size(); off += 1 << 20 {
		at := off % int64(len(data))
		must(t, v.WriteAt(ctx, data[at:at+1<<20], off, false))
	}
	must(t, v.Flush(ctx))
	began := time.Now()
	v.Pause(false)
	must(t, v.Sync(ctx, nil))
	return float64(v.Size()) / time.Since(began).Seconds()
}

// compress returns the seconds zstd alone needs for a byte, with the settings and the parallelism of package pack, and
// what is left of it.
func compress(t testing.TB, data []byte) (perByte, stored float64) {
	t.Helper()
	const frame = 128 << 10
	workers := max(1, runtime.NumCPU()/2)
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(workers), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(frame), zstd.WithEncoderCRC(false))
	must(t, err)
	defer enc.Close()
	left := make([]int, workers)
	began := time.Now()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			var out []byte
			for off := w * frame; off < len(data); off += workers * frame {
				out = enc.EncodeAll(data[off:min(len(data), off+frame)], out[:0])
				left[w] += len(out)
			}
		})
	}
	wg.Wait()
	perByte = time.Since(began).Seconds() / float64(len(data))
	for _, n := range left {
		stored += float64(n) / float64(len(data))
	}
	return perByte, stored
}

// put returns the seconds a byte takes to the store, in objects of n bytes, one after the other.
func put(t testing.TB, st store.Store, n int) float64 {
	t.Helper()
	ctx := store.With(context.Background(), store.Upload)
	body, objects := make([]byte, n), choose(1, 8)
	_, _ = rand.NewChaCha8([32]byte{6}).Read(body)
	var took time.Duration
	for i := range objects {
		key := fmt.Sprintf("packs/00/bench-%d", i)
		began := time.Now()
		_, err := st.Put(ctx, key, body, store.Condition{})
		must(t, err)
		took += time.Since(began)
		must(t, st.Delete(ctx, key))
	}
	return took.Seconds() / float64(n*objects)
}
