package manifest

import (
	"crypto/rand"
	"testing"
	"time"

	"glidefs-appliance/backend/pack"
)

// sample is a manifest that uses every field.
func sample(name string) *Manifest {
	m := &Manifest{
		Name: name, Size: 10 << 30, Sector: 4096, Epoch: 7,
		Owner: Owner{Host: "alpha"}, Since: time.Unix(1700000000, 5).UTC(), Closed: true, Created: time.Unix(1600000000, 0).UTC(),
		Barrier: Barrier{Seq: 99, Chain: 0xdeadbeef}, BarrierTime: time.Unix(1700000100, 7).UTC(),
		Tail:   []TailEntry{{Ref: ref(3, 9)}, {Ref: ref(0, 1), Inline: []byte("a whole pack")}},
		Levels: []Root{{}, {Page: [32]byte{1}, Depth: 2, Packs: 3, Bytes: 4, Sectors: 5}},
		Extra:  []Section{{Tag: 200, Data: []byte("later")}, {Tag: 1000, Data: []byte{}}},
	}
	for _, id := range [][]byte{m.Volume[:], m.Owner.State[:], m.Log[:], m.Barrier.Log[:], m.Nonce[:]} {
		rand.Read(id)
	}
	return m
}

// ref is a reference to a pack that no store has.
func ref(first, end uint64) pack.Ref {
	r := pack.Ref{Size: 4096, IndexLen: 100, First: first, End: end, Sectors: end - first}
	rand.Read(r.Hash[:])
	rand.Read(r.IndexSum[:])
	return r
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
