package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
)

// line is a store that notes when which bytes of bodies move.
type line struct {
	store.Store
	lost int // attempts of a PUT whose answer gets lost

	mu    sync.Mutex
	moved []moved
}

type moved struct {
	at    time.Time
	n     int
	class store.Class
}

func (l *line) note(ctx context.Context, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moved = append(l.moved, moved{time.Now(), n, store.ClassOf(ctx)})
}

func (l *line) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	r := store.Paced(ctx, bytes.NewReader(body))
	for p := make([]byte, 32<<10); ; { // as net/http does
		n, err := r.Read(p)
		l.note(ctx, n)
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return store.Info{}, err
		}
	}
	if l.lost > 0 {
		l.lost--
		return store.Info{}, fmt.Errorf("%w: lost", store.ErrAmbiguous)
	}
	return store.Info{Key: key, ETag: "x"}, nil
}

func (l *line) Get(ctx context.Context, key string, r store.Range) ([]byte, store.Info, error) {
	body := make([]byte, r.Len)
	err := store.InPieces(ctx, body, func(p []byte) error {
		l.note(ctx, len(p))
		return nil
	})
	return body, store.Info{}, err
}

// peak is the most that moved in any second.
func (l *line) peak() (most int) {
	sum, from := 0, 0
	for _, m := range l.moved {
		for sum += m.n; m.at.Sub(l.moved[from].at) >= time.Second; from++ {
			sum -= l.moved[from].n
		}
		most = max(most, sum)
	}
	return most
}

// TestNoSecondSeesMoreThanTheLimit, whatever the sizes of bodies, how many there are, and how often they are sent; and the
// limit is used.
func TestNoSecondSeesMoreThanTheLimit(t *testing.T) {
	for _, limit := range []int{10 << 10, 100 << 10, 3 << 20} {
		synctest.Test(t, func(t *testing.T) {
			l := &line{Store: mem.New(), lost: 1}
			s := store.NewStack(l, store.StackOptions{Gateway: store.GatewayOptions{UploadLimit: int64(limit), DownloadLimit: int64(limit)}})
			time.Sleep(time.Hour) // what was not used before is not saved up
			sizes, total := []int{30 * limit, 5 * limit, limit / 10, limit, 3*limit + 1, 100}, 0
			begin := time.Now()
			var wg sync.WaitGroup
			for i, n := range sizes {
				c := []store.Class{store.Upload, store.Compaction, store.Manifest}[i%3]
				wg.Go(func() {
					if _, err := s.Put(store.With(t.Context(), c), "packs/a", make([]byte, n), store.Condition{}); err != nil {
						t.Error(err)
					}
				})
				if synctest.Wait(); i == 0 {
					time.Sleep(40 * time.Second) // it was sent, and is sent again
					total += n
				}
				total += n
			}
			wg.Wait()
			if most := limit + min(max(limit/8, 4<<10), 128<<10); l.peak() > most {
				t.Errorf("%d B/s: %d bytes in a second, want at most %d", limit, l.peak(), most)
			}
			if took, want := time.Since(begin), time.Duration(total/limit)*time.Second; took > want+want/10+5*time.Second || took < want-time.Second {
				t.Errorf("%d B/s: %d bytes took %s, want about %s", limit, total, took, want)
			}
			l.moved = nil
			for _, c := range []store.Class{store.Guest, store.Prefetch, store.Compaction} {
				wg.Go(func() { _, _, _ = s.Get(store.With(t.Context(), c), "packs/a", store.Range{Len: int64(9 * limit)}) })
			}
			wg.Wait()
			if most := limit + min(max(limit/8, 4<<10), 128<<10); l.peak() > most {
				t.Errorf("%d B/s: %d bytes down in a second, want at most %d", limit, l.peak(), most)
			}
		})
	}
}

// TestHigherClassesPassABody that moves already; but it does not come to a stop, or servers would end the connection.
func TestHigherClassesPassABody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{Store: mem.New()}
		g := store.NewGateway(l, store.GatewayOptions{DownloadLimit: 1 << 20})
		get := func(c store.Class, n int64) {
			if _, _, err := g.Get(store.With(t.Context(), c), "packs/a", store.Range{Len: n}); err != nil {
				t.Error(err)
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() { get(store.Compaction, 64<<20) })
		time.Sleep(time.Second)
		for range 4 {
			wg.Go(func() {
				for range 60 { // a flood
					get(store.Guest, 256<<10)
				}
			})
		}
		wg.Wait()
		shares, last, pause := map[store.Class]int{}, l.moved[0].at, time.Duration(0)
		for _, m := range l.moved {
			if m.at.Sub(l.moved[0].at) > 50*time.Second {
				break
			}
			if shares[m.class] += m.n; m.class == store.Compaction {
				last, pause = m.at, max(pause, m.at.Sub(last))
			}
		}
		if shares[store.Guest] < 9*shares[store.Compaction] || shares[store.Guest] < 40<<20 {
			t.Errorf("%v: guests have no precedence", shares)
		}
		if pause = max(pause, 50*time.Second-last.Sub(l.moved[0].at)); pause > 8*time.Second {
			t.Errorf("a body stood still for %s", pause)
		}
	})
}

// TestWaitingForBandwidthIsNotTheStoresFault: a body that takes very long because of the limit is neither given up nor does
// the store look unwell, also not when the caller gives up.
func TestWaitingForBandwidthIsNotTheStoresFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var health []store.Health
		s := store.NewStack(&line{Store: mem.New()}, store.StackOptions{
			Gateway:  store.GatewayOptions{UploadLimit: 100, DownloadLimit: 1000},
			OnHealth: func(h store.Health) { health = append(health, h) },
		})
		put := make(chan error, 1)
		go func() {
			_, err := s.Put(store.With(t.Context(), store.Upload), "packs/a", make([]byte, 100_000), store.Condition{})
			put <- err
		}()
		for range 10 {
			ctx, cancel := context.WithTimeout(store.With(t.Context(), store.Guest), 20*time.Second)
			if _, _, err := s.Get(ctx, "packs/a", store.Range{Len: 1 << 20}); !errors.Is(err, context.DeadlineExceeded) || store.Retryable(err) {
				t.Error(err)
			}
			cancel()
			if h := s.Health(); h.State != store.HealthOK {
				t.Fatalf("%+v", h)
			}
		}
		if err := <-put; err != nil || len(health) > 0 {
			t.Errorf("%v, %+v", err, health)
		}
		if busy := s.Stats().Ops[store.Upload][store.OpPut]; busy.Busy > time.Second || busy.Waited < 900*time.Second {
			t.Errorf("%+v", busy)
		}
	})
}

// TestADirectionLeavesSlots: reads that wait for bandwidth leave slots for uploads, which don't.
func TestADirectionLeavesSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := store.NewStack(&line{Store: mem.New()}, store.StackOptions{Gateway: store.GatewayOptions{DownloadLimit: 1000}})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 100 {
			c := []store.Class{store.Guest, store.Prefetch, store.Compaction}[i%3]
			wg.Go(func() { _, _, _ = s.Get(store.With(ctx, c), "packs/a", store.Range{Len: 1 << 20}) })
		}
		synctest.Wait()
		begin := time.Now()
		if _, err := s.Put(store.With(ctx, store.Upload), "packs/b", make([]byte, 30<<20), store.Condition{}); err != nil || time.Since(begin) > 0 {
			t.Errorf("an upload took %s, %v", time.Since(begin), err)
		}
		if st := s.Stats(); st.Waiting[store.Guest] == 0 || st.InFlight[store.Guest] == 0 {
			t.Errorf("%+v", st)
		}
		cancel()
		wg.Wait()
		if st := s.Stats(); st.Waiting != [store.NumClasses]int{} || st.InFlight != [store.NumClasses]int{} {
			t.Errorf("left over: %+v", st)
		}
	})
}

// hasty answers a PUT that it refuses before it has all of the body, as servers do; what moves the body is cancelled.
type hasty struct{ store.Store }

func (h hasty) Put(ctx context.Context, key string, body []byte, c store.Condition) (store.Info, error) {
	ctx, cancel := context.WithCancel(ctx)
	moved := make(chan error)
	go func() { moved <- store.InPieces(ctx, body, func([]byte) error { return nil }) }()
	time.Sleep(10 * time.Second)
	cancel()
	return store.Info{}, fmt.Errorf("%w: slow down (%w)", store.ErrUnavailable, <-moved)
}

// TestAnEarlyAnswerIsTheStores, although the body waited for bandwidth when it came.
func TestAnEarlyAnswerIsTheStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := store.NewGateway(hasty{mem.New()}, store.GatewayOptions{UploadLimit: 100})
		_, err := g.Put(t.Context(), "packs/a", make([]byte, 1<<20), store.Condition{})
		if !errors.Is(err, store.ErrUnavailable) || strings.Contains(err.Error(), "turn") {
			t.Error(err)
		}
	})
}
