package pack

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// Finish works under the slots it is given: it waits while others hold them, and leaves them free.
func TestFinishTakesTurns(t *testing.T) {
	data := noise(rand.New(rand.NewPCG(1, 1)), 3*MaxFrame)
	synctest.Test(t, func(t *testing.T) {
		slots := make(chan struct{}, 2)
		slots <- struct{}{}
		slots <- struct{}{}
		done := make(chan error, 1)
		b := NewBuilder(4096, slots)
		b.Add(0, data)
		go func() {
			_, err := b.Finish()
			done <- err
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("it did not wait")
		default:
		}
		<-slots
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		<-slots
		if len(slots) != 0 {
			t.Fatalf("%d slots are still held", len(slots))
		}
	})
}

// Two bubbles in one process share the coders.
func TestCodersOutliveABubble(t *testing.T) {
	for range 2 {
		synctest.Test(t, func(t *testing.T) {
			b := NewBuilder(4096, make(chan struct{}, 1))
			b.Add(0, text(rand.New(rand.NewPCG(1, 1)), MaxFrame))
			if _, err := b.Finish(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func BenchmarkFinish(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		name string
		data []byte
	}{{"text", text(r, 8<<20)}, {"noise", noise(r, 8<<20)}} {
		b.Run(c.name, func(b *testing.B) {
			bld := NewBuilder(4096, nil)
			b.SetBytes(int64(len(c.data)))
			b.ReportAllocs()
			for range b.N {
				bld.Reset()
				bld.Add(0, c.data)
				if _, err := bld.Finish(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A panic in one of the helpers of Finish is the caller's, and comes when the others have ended.
func TestPanicsReachTheCaller(t *testing.T) {
	b := NewBuilder(4096, make(chan struct{}, 3))
	var ran atomic.Int32
	defer func() {
		if recover() == nil || ran.Load() < 90 || len(b.slots) > 0 {
			t.Errorf("%d of 99 ran, %d slots are held", ran.Load(), len(b.slots))
		}
	}()
	_ = b.parallel(100, func(i int, _ []byte) error {
		if i == 50 {
			panic("as asked")
		}
		ran.Add(1)
		return nil
	})
	t.Error("no panic")
}
