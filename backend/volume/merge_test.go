package volume

import (
	"bytes"
	"context"
	"testing"

	"glidefs-appliance/backend/vfs"
)

// TestMergeMemory: a merge of packs that compress very well holds little of them, and nothing of those behind it.
func TestMergeMemory(t *testing.T) {
	r := newRig(vfs.NewCrash(), "/state")
	r.log, r.tuning.NoCompaction, r.tuning.BatchBytes = 64<<20, true, 16<<20
	v := r.open(t, "a", OpenOptions{Create: 64 << 20})
	defer func() { r.kill(v, false) }()
	const packs, each = 3, 12 << 20
	for i := range packs {
		for off := int64(0); off < each; off += 1 << 20 {
			if err := v.WriteAt(t.Context(), bytes.Repeat([]byte{byte(1 + i)}, 1<<20), int64(i)*each+off, false); err != nil {
				t.Fatal(err)
			}
		}
		mustSync(t, v)
	}
	m := merger{host: r.h, sector: v.sector, packs: v.currentView().tail}
	if len(m.packs) != packs || m.packs[0].ref.Size > fetchBytes {
		t.Fatalf("%d packs: %+v", len(m.packs), m.packs)
	}
	plan, err := m.plan(context.Background(), 0, ^uint64(0))
	if err != nil {
		t.Fatal(err)
	}
	rd, most, n := mergeReader{m: &m, buf: make([]byte, mergeChunk)}, 0, 0
	err = plan.runs(0, ^uint64(0), func(r run) error {
		data, err := rd.read(context.Background(), plan, r, r.count)
		if err != nil || !bytes.Equal(data, bytes.Repeat([]byte{byte(1 + r.first*4096/each)}, int(r.count)*4096)) {
			t.Fatalf("sector %d: wrong data, %v", r.first, err)
		}
		n += len(data)
		held := 0
		for _, g := range rd.held {
			for _, f := range g.frames {
				held += len(f)
			}
		}
		most = max(most, held)
		return nil
	})
	if err != nil || n != packs*each {
		t.Fatal(n, err)
	}
	if most == 0 || most > groupBytes {
		t.Errorf("%d bytes were held", most)
	}
}
