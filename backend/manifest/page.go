package manifest

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/zeebo/blake3"

	"glidefs-appliance/backend/pack"
)

const (
	pageMagic   = "glidemap"
	maxEntries  = 512 // of a page
	fewEntries  = maxEntries / 4
	maxDepth    = 7 // 512^8 packs
	pageHeadLen = 8 + 4 + 1 + 1 + 2 + 16
	childLen    = 32 + 5*8
)

// page is a decoded map page: refs at depth 0, children above, never both. Immutable.
type page struct {
	depth    uint8
	refs     []pack.Ref
	children []child
}

// child is an entry of a page above the leaves: a Root and the sectors below it.
type child struct {
	Root
	First, End uint64
}

func pageKey(hash [32]byte) string {
	s := hex.EncodeToString(hash[:])
	return "maps/" + s[:2] + "/" + s
}

// Key is where the page lies in the store.
func (r Root) Key() string { return pageKey(r.Page) }

func (p *page) encode() []byte {
	b := make([]byte, 0, pageHeadLen+len(p.refs)*pack.RefLen+len(p.children)*childLen)
	b = append(b, pageMagic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = append(b, p.depth, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(p.refs)+len(p.children)))
	b = b[:pageHeadLen]
	rand.Read(b[pageHeadLen-16:])
	for _, r := range p.refs {
		b = r.Append(b)
	}
	for _, c := range p.children {
		b = append(b, c.Page[:]...)
		b = binary.LittleEndian.AppendUint64(b, c.First)
		b = binary.LittleEndian.AppendUint64(b, c.End)
		b = appendTotals(b, c.Packs, c.Bytes, c.Sectors)
	}
	return b
}

// decodePage verifies and decodes the page that want points to.
func decodePage(want Root, b []byte) (*page, error) {
	if blake3.Sum256(b) != want.Page {
		return nil, fmt.Errorf("map page %x: %w: it does not match its name", want.Page, ErrDamaged)
	}
	p, err := parsePage(b)
	if err != nil {
		return nil, fmt.Errorf("map page %x: %w", want.Page, err)
	}
	got := p.total()
	if got.Packs != want.Packs || got.Bytes != want.Bytes || got.Sectors != want.Sectors || p.depth != want.Depth {
		return nil, fmt.Errorf("map page %x: %w: it does not match what points to it", want.Page, ErrDamaged)
	}
	return p, nil
}

// parsePage decodes a page. What it allocates is bounded by a small multiple of len(b).
func parsePage(b []byte) (*page, error) {
	r := reader{b: b}
	if err := r.head(pageMagic); err != nil {
		return nil, err
	}
	p := &page{depth: r.byte()}
	r.expect(r.byte() == 0)
	n := int(r.u16())
	r.id()
	if p.depth == 0 {
		p.readRefs(&r, n)
	} else {
		p.readChildren(&r, n)
	}
	if r.bad || n == 0 || n > maxEntries || p.depth > maxDepth || r.more() {
		return nil, fmt.Errorf("%w: impossible values", ErrDamaged)
	}
	return p, nil
}

func (p *page) readRefs(r *reader, n int) {
	end := uint64(0)
	for range min(n, len(r.b)/pack.RefLen) {
		ref := r.ref()
		r.expect(ref.First >= end)
		end = ref.End
		p.refs = append(p.refs, ref)
	}
	r.expect(len(p.refs) == n)
}

func (p *page) readChildren(r *reader, n int) {
	end := uint64(0)
	for range min(n, len(r.b)/childLen) {
		c := child{Root: Root{Page: r.hash(), Depth: p.depth - 1}, First: r.u64(), End: r.u64()}
		c.Packs, c.Bytes, c.Sectors = r.u64(), r.u64(), r.u64()
		r.expect(c.First >= end && c.End > c.First && c.Packs > 0)
		end = c.End
		p.children = append(p.children, c)
	}
	r.expect(len(p.children) == n)
}

// total is the entry for p in the page above, but for its name.
func (p *page) total() child {
	c := child{Root: Root{Depth: p.depth}}
	for i, r := range p.refs {
		if i == 0 {
			c.First = r.First
		}
		c.End = r.End
		c.Packs, c.Bytes, c.Sectors = c.Packs+1, c.Bytes+uint64(r.Size), c.Sectors+r.Sectors
	}
	for i, d := range p.children {
		if i == 0 {
			c.First = d.First
		}
		c.End = d.End
		c.Packs, c.Bytes, c.Sectors = c.Packs+d.Packs, c.Bytes+d.Bytes, c.Sectors+d.Sectors
	}
	return c
}
