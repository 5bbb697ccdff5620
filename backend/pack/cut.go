package pack

// cut divides the runs into extents and the extents into frames, of which only Raw is known yet.
func (b *Builder) cut() *Index {
	c := cutter{sector: b.sector, ix: &Index{
		SectorSize: uint32(b.sector),
		Extents:    make([]Extent, 0, b.pieces),
	}}
	for _, r := range b.runs {
		if r.zero {
			c.ix.Extents = append(c.ix.Extents, Extent{First: r.first, Count: r.count, Frame: ZeroFrame})
		} else {
			c.run(r)
		}
	}
	return c.ix
}

// cutter appends extents in address order. A frame is shared while it is the last one and has room; this order is what lets the
// index leave out where an extent lies.
type cutter struct {
	sector uint64
	ix     *Index
	shared bool // the last frame holds scattered pieces
}

func (c *cutter) run(r run) {
	per := MaxFrame / c.sector
	for r.count > 0 {
		n := min(r.count, per-r.first%per)
		c.piece(r.first, n)
		r.first, r.count = r.first+n, r.count-n
	}
}

func (c *cutter) piece(first, count uint64) {
	size := uint32(count * c.sector)
	last := len(c.ix.Frames) - 1
	scattered := size < MaxScattered
	if !scattered || !c.shared || c.ix.Frames[last].Raw+size > MaxScattered {
		c.ix.Frames = append(c.ix.Frames, Frame{})
		last++
	}
	f := &c.ix.Frames[last]
	c.ix.Extents = append(c.ix.Extents, Extent{First: first, Count: count, Frame: uint32(last), Off: f.Raw})
	f.Raw += size
	c.shared = scattered
}
