package volume

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// cellSize is what the concurrent test takes for a register: less than a sector, so that a write at odd bytes that
// brings back old neighbours is seen.
const cellSize = 512

// access is one cell's part of a request.
type access struct {
	cell  int
	write bool
	value uint64 // written
}

// registers says that a cell is a register: a read gives the last value written. A request touches each of its cells at
// some time of its own between call and return; nothing is promised about several cells together.
var registers = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byCell := map[int][]porcupine.Operation{}
		for _, op := range history {
			c := op.Input.(access).cell
			byCell[c] = append(byCell[c], op)
		}
		var parts [][]porcupine.Operation
		for _, p := range byCell {
			parts = append(parts, p)
		}
		return parts
	},
	Init: func() any { return uint64(0) },
	Step: func(state, input, output any) (bool, any) {
		if in := input.(access); in.write {
			return true, in.value
		}
		return output.(uint64) == state.(uint64), state
	},
	DescribeOperation: func(input, output any) string {
		if in := input.(access); in.write {
			return fmt.Sprintf("cell %d := %d", in.cell, in.value)
		}
		return fmt.Sprintf("cell %d is %d", input.(access).cell, output)
	},
}

// clients drive one disk and keep the history of what they did.
type clients struct {
	t      *testing.T
	v      *Volume
	clock  atomic.Int64
	values atomic.Uint64
	mu     sync.Mutex
	ops    []porcupine.Operation
}

func (c *clients) record(client int, call int64, cells []access, got []uint64) {
	back := c.clock.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, a := range cells {
		op := porcupine.Operation{ClientId: client, Input: a, Call: call, Return: back}
		if got != nil {
			op.Output = got[i]
		}
		c.ops = append(c.ops, op)
	}
}

func (c *clients) run(client int, rng *rand.Rand, n int) {
	for range n {
		if err := c.request(client, rng); err != nil {
			c.t.Error(err)
			return
		}
	}
}

func (c *clients) request(client int, rng *rand.Rand) error {
	ctx, cells := context.Background(), int(c.v.Size()/cellSize)
	lo := rng.IntN(cells)
	hi := min(cells, lo+1+rng.IntN(40))
	if rng.IntN(2) == 0 {
		lo, hi = lo&^7, (hi+7)&^7 // whole sectors
	}
	off, n, kind := int64(lo)*cellSize, int64(hi-lo)*cellSize, rng.IntN(20)
	if kind >= 18 {
		lo, hi = (lo+7)&^7, hi&^7 // what a discard touches
	}
	value := uint64(0)
	if kind < 16 {
		value = c.values.Add(1)
	}
	touched := make([]access, 0, 40)
	for cell := lo; cell < hi; cell++ {
		touched = append(touched, access{cell, kind >= 8, value})
	}
	call := c.clock.Add(1)
	var got []uint64
	var err error
	switch {
	case kind < 8:
		p := make([]byte, n)
		if err = c.v.ReadAt(ctx, p, off); err == nil {
			got, err = readCells(p)
		}
	case kind < 16:
		err = c.v.WriteAt(ctx, cellBytes(value, n), off, kind == 8)
	case kind < 18:
		err = c.v.WriteZeroes(ctx, off, n)
	default:
		err = c.v.Discard(ctx, off, n)
	}
	c.record(client, call, touched, got)
	return err
}

func cellBytes(value uint64, n int64) []byte {
	p := make([]byte, n)
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], value)
	}
	return p
}

// readCells returns the value of each cell; a cell is written and read whole.
func readCells(p []byte) (values []uint64, err error) {
	for len(p) > 0 {
		v := binary.LittleEndian.Uint64(p)
		for i := 8; i < cellSize; i += 8 {
			if w := binary.LittleEndian.Uint64(p[i:]); w != v {
				return nil, fmt.Errorf("torn cell: %d and %d", v, w)
			}
		}
		values, p = append(values, v), p[cellSize:]
	}
	return values, nil
}

// check shows the history of a cell that is no register.
func (c *clients) check() {
	if porcupine.CheckOperationsTimeout(registers, c.ops, time.Minute) == porcupine.Ok {
		return
	}
	for _, ops := range registers.Partition(c.ops) {
		if porcupine.CheckOperationsTimeout(registers, ops, 10*time.Second) == porcupine.Ok {
			continue
		}
		for _, op := range ops {
			c.t.Logf("client %d, %d to %d: %s", op.ClientId, op.Call, op.Return, registers.DescribeOperation(op.Input, op.Output))
		}
		c.t.Fatal("not linearizable")
	}
}

// TestLinearizable: concurrent reads, writes at odd bytes and whole sectors, zeroes and discards of a small disk, while
// batches are uploaded, segments evicted and recycled, and packs merged. Each cell behaves like a register.
func TestLinearizable(t *testing.T) {
	eachSeed(t, 6*time.Second, func(t *testing.T, seed uint64) {
		r := newDiskRig(t)
		r.log, r.cache = 5*64<<10, 64<<10
		r.tuning.BatchBytes, r.tuning.TailPacks, r.tuning.LevelBytes = 32<<10, 2, 64<<10
		c := &clients{t: t, v: r.open(t, "disk", OpenOptions{Create: 32 * 4096})}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() { c.run(i, rand.New(rand.NewPCG(seed, uint64(i))), 150) })
		}
		wg.Wait()
		mustSync(t, c.v)
		merged := r.h.counters.merged.Load()
		r.kill(c.v, false)
		if merged == 0 {
			t.Error("nothing was merged: the test has lost its bite")
		}
		c.check()
	})
}
