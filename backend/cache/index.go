package cache

// index finds frames by key. It has no pointers but the two slices, so the garbage collector does not look into it:
// 40 bytes a frame and 4 bytes a table cell, two thirds of them used, 46 bytes in all.
//
// A frame lives in a slot. A slot is in the table, or in the list of a segment, or both; one in neither is free, or
// with the cleaner.
type index struct {
	slots []frame
	free  uint32   // first free slot, linked by next
	table []uint32 // slot+1, 0 for none; open addressing with linear probing, no tombstones
	count int      // slots in the table
	bytes int64    // of their frames
}

// frame is where a frame is. A size of 0 marks a slot that is not in the table any more.
type frame struct {
	key   Key
	seg   uint32 // slot of its segment
	block uint32 // of its first byte in the segment file
	pos   uint32 // of its entry in the segment's index
	size  uint32 // bytes in the lower bits, flags in the upper ones
	next  uint32 // in the list of its segment, or of the free slots
}

const (
	flagVerified = 1 << 31 // written or checked in this process
	flagHit      = 1 << 30 // read since its segment was filled
	flagPending  = 1 << 29 // still being written; not to be read
	sizeMask     = 1<<24 - 1

	none = ^uint32(0)
)

func (f *frame) bytes() uint32        { return f.size & sizeMask }
func (f *frame) has(flag uint32) bool { return f.size&flag != 0 }

func (x *index) init() {
	x.free = none
	x.table = make([]uint32, 1024)
}

// hash relies on Object being a hash already.
func hash(k *Key) uint64 {
	h := le.Uint64(k.Object[:]) ^ uint64(k.Frame)*0x9e3779b97f4a7c15
	return h ^ h>>32
}

// find returns the slot of a key, or none.
func (x *index) find(k *Key) uint32 {
	for i := x.home(k); ; i = x.after(i) {
		cell := x.table[i]
		if cell == 0 {
			return none
		}
		if x.slots[cell-1].key == *k {
			return cell - 1
		}
	}
}

func (x *index) home(k *Key) int    { return int(hash(k) & uint64(len(x.table)-1)) }
func (x *index) after(cell int) int { return (cell + 1) & (len(x.table) - 1) }

// add puts a frame, whose key must not be there, into a slot and the table.
func (x *index) add(f frame) uint32 {
	slot := x.free
	if slot != none {
		x.free = x.slots[slot].next
		x.slots[slot] = f
	} else {
		slot = uint32(len(x.slots))
		x.slots = append(x.slots, f)
	}
	if (x.count+1)*4 > len(x.table)*3 {
		x.grow()
	}
	x.enter(slot)
	x.count++
	x.bytes += int64(f.bytes())
	return slot
}

func (x *index) enter(slot uint32) {
	i := x.home(&x.slots[slot].key)
	for x.table[i] != 0 {
		i = x.after(i)
	}
	x.table[i] = slot + 1
}

func (x *index) grow() {
	old := x.table
	x.table = make([]uint32, 2*len(old))
	for _, cell := range old {
		if cell != 0 {
			x.enter(cell - 1)
		}
	}
}

// drop takes a slot out of the table; it stays in the list of its segment. Later cells move up so that no search
// ends early.
func (x *index) drop(slot uint32) {
	hole := x.home(&x.slots[slot].key)
	for x.table[hole] != slot+1 {
		hole = x.after(hole)
	}
	for i := x.after(hole); x.table[i] != 0; i = x.after(i) {
		home := x.home(&x.slots[x.table[i]-1].key)
		if mask := len(x.table) - 1; (i-home)&mask >= (i-hole)&mask {
			x.table[hole] = x.table[i]
			hole = i
		}
	}
	x.table[hole] = 0
	x.bytes -= int64(x.slots[slot].bytes())
	x.slots[slot].size = 0
	x.count--
}

// release frees a slot that is in no table and no list.
func (x *index) release(slot uint32) {
	x.slots[slot] = frame{next: x.free}
	x.free = slot
}
