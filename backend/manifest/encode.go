package manifest

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"

	"glidefs-appliance/backend/pack"
)

const (
	version       = 1
	manifestMagic = "glidevol"
	sumLen        = 32
	flagClosed    = 1
	flagDeleted   = 2
	minTailEntry  = pack.RefLen + 1
	rootLen       = 32 + 1 + 3*8
)

// Encode returns the bytes of m; they are the same for the same m. Times keep nanoseconds and lose their zone.
func (m *Manifest) Encode() []byte {
	b := append(make([]byte, 0, 512), manifestMagic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = append(b, m.Nonce[:]...)
	b = append(b, m.Volume[:]...)
	b = appendStr(b, []byte(m.Name))
	b = binary.LittleEndian.AppendUint64(b, uint64(m.Size))
	b = binary.LittleEndian.AppendUint32(b, uint32(m.Sector))
	b = binary.LittleEndian.AppendUint64(b, m.Epoch)
	b = m.appendWriter(b)
	b = m.appendPacks(b)
	for _, s := range m.Extra {
		b = binary.AppendUvarint(b, s.Tag)
		b = appendStr(b, s.Data)
	}
	sum := blake3.Sum256(b)
	return append(b, sum[:]...)
}

func (m *Manifest) appendWriter(b []byte) []byte {
	b = append(b, m.Owner.State[:]...)
	b = appendStr(b, []byte(m.Owner.Host))
	b = appendTime(b, m.Since)
	flags := byte(0)
	if m.Closed {
		flags |= flagClosed
	}
	if m.Deleted {
		flags |= flagDeleted
	}
	b = append(b, flags)
	b = appendTime(b, m.Created)
	b = append(b, m.Log[:]...)
	b = append(b, m.Barrier.Log[:]...)
	b = binary.LittleEndian.AppendUint64(b, m.Barrier.Seq)
	b = binary.LittleEndian.AppendUint32(b, m.Barrier.Chain)
	return appendTime(b, m.BarrierTime)
}

func (m *Manifest) appendPacks(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(m.Tail)))
	for _, e := range m.Tail {
		b = e.Ref.Append(b)
		b = appendStr(b, e.Inline)
	}
	b = binary.AppendUvarint(b, uint64(len(m.Levels)))
	for _, r := range m.Levels {
		b = append(b, r.Page[:]...)
		b = append(b, r.Depth)
		b = appendTotals(b, r.Packs, r.Bytes, r.Sectors)
	}
	return b
}

func appendTotals(b []byte, packs, bytes, sectors uint64) []byte {
	b = binary.LittleEndian.AppendUint64(b, packs)
	b = binary.LittleEndian.AppendUint64(b, bytes)
	return binary.LittleEndian.AppendUint64(b, sectors)
}

// Decode is the inverse of Encode. The Manifest shares body's memory, which must not change any more. Errors are ErrDamaged or
// ErrVersion. What it allocates is bounded by a small multiple of len(body).
func Decode(body []byte) (*Manifest, error) {
	m, err := decode(body)
	if err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	return m, nil
}

func decode(body []byte) (*Manifest, error) {
	if len(body) < sumLen {
		return nil, fmt.Errorf("%w: %d bytes", ErrDamaged, len(body))
	}
	end := len(body) - sumLen
	if blake3.Sum256(body[:end]) != [sumLen]byte(body[end:]) {
		return nil, fmt.Errorf("%w: it does not match its sum", ErrDamaged)
	}
	r := reader{b: body[:end]}
	if err := r.head(manifestMagic); err != nil {
		return nil, err
	}
	m := &Manifest{}
	m.read(&r)
	m.readPacks(&r)
	for r.more() {
		m.Extra = append(m.Extra, Section{Tag: r.uvarint(), Data: r.str()})
	}
	if r.bad {
		return nil, fmt.Errorf("%w: it ends early or has impossible values", ErrDamaged)
	}
	if err := m.check(); err != nil {
		if errors.Is(err, ErrVersion) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return m, nil
}

func (m *Manifest) read(r *reader) {
	r.expect(r.u32() == 0)
	m.Nonce, m.Volume = r.id(), r.id()
	m.Name = string(r.str())
	m.Size, m.Sector, m.Epoch = int64(r.u64()), int(r.u32()), r.u64()
	m.Owner = Owner{State: r.id(), Host: string(r.str())}
	m.Since = r.time()
	flags := r.byte()
	r.expect(flags&^(flagClosed|flagDeleted) == 0)
	m.Closed, m.Deleted = flags&flagClosed != 0, flags&flagDeleted != 0
	m.Created = r.time()
	m.Log = r.id()
	m.Barrier = Barrier{Log: r.id(), Seq: r.u64(), Chain: r.u32()}
	m.BarrierTime = r.time()
}

func (m *Manifest) readPacks(r *reader) {
	for range r.count(minTailEntry) {
		e := TailEntry{Ref: r.ref()}
		if inline := r.str(); len(inline) > 0 {
			e.Inline = inline
		}
		m.Tail = append(m.Tail, e)
	}
	for range r.count(rootLen) {
		m.Levels = append(m.Levels, Root{Page: r.hash(), Depth: r.byte(), Packs: r.u64(), Bytes: r.u64(), Sectors: r.u64()})
	}
}
