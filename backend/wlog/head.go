package wlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"glidefs-appliance/backend/vfs"
)

const (
	headName    = "head"
	headFixed   = 8 + 4 + 4 + 16 + 8 + 2*barrierSize + 4 + 4
	maxBootID   = 256
	maxHead     = 1 << 20
	headClean   = 1
	incSize     = 16 + 8 + barrierSize
	barrierSize = 16 + 8 + 4
)

var headMagic = [8]byte{'g', 'l', 'i', 'd', 'e', 'l', 'o', 'g'}

// Incarnation is one attach for writing: the records First..Last.Seq of the log.
type Incarnation struct {
	ID    LogID
	First uint64  // seq of its first record
	Last  Barrier // its last record, seq First-1 if it has none; zero for the newest incarnation, which is still open
}

// Head is what the head file says, and whether it was written under the running kernel.
type Head struct {
	Volume       [16]byte
	BootID       string
	Incarnations []Incarnation
	Settled      Barrier // everything up to it is in the store
	Mark         uint64  // everything up to this seq was durable when the head was written
	Clean        bool    // the last process closed the log
	SameBoot     bool    // no power cut since: not stored

	// base is where the log begins: Settled, or a later mark record with nothing but marks in between. Segments that
	// end at or before it may be gone.
	base Barrier
}

// Exists tells whether dir holds a log, or may hold one: what keeps us from looking will keep Open too, and Open says what
// it is.
func Exists(fsys vfs.FS, dir string) bool {
	f, err := fsys.Open(filepath.Join(dir, headName))
	if err == nil {
		_ = f.Close()
	}
	return !errors.Is(err, fs.ErrNotExist)
}

func (h *Head) encode() []byte {
	p := make([]byte, 0, headFixed+len(h.BootID)+len(h.Incarnations)*incSize)
	p = append(p, headMagic[:]...)
	p = binary.LittleEndian.AppendUint32(p, formatMajor)
	var flags uint32
	if h.Clean {
		flags |= headClean
	}
	p = binary.LittleEndian.AppendUint32(p, flags)
	p = append(p, h.Volume[:]...)
	p = binary.LittleEndian.AppendUint64(p, h.Mark)
	p = appendBarrier(p, h.Settled)
	p = appendBarrier(p, h.base)
	p = binary.LittleEndian.AppendUint16(p, uint16(len(h.BootID)))
	p = binary.LittleEndian.AppendUint16(p, uint16(len(h.Incarnations)))
	p = append(p, h.BootID...)
	for _, inc := range h.Incarnations {
		p = append(p, inc.ID[:]...)
		p = binary.LittleEndian.AppendUint64(p, inc.First)
		p = appendBarrier(p, inc.Last)
	}
	return binary.LittleEndian.AppendUint32(p, Sum(p))
}

func (h *Head) decode(p []byte) error {
	switch {
	case len(p) < headFixed || len(p) > maxHead || [8]byte(p[:8]) != headMagic:
		return errors.New("not a log head")
	case Sum(p[:len(p)-4]) != binary.LittleEndian.Uint32(p[len(p)-4:]):
		return errors.New("checksum of the log head does not match")
	case binary.LittleEndian.Uint32(p[8:]) != formatMajor:
		return fmt.Errorf("log format %d is not known, only %d", binary.LittleEndian.Uint32(p[8:]), formatMajor)
	}
	*h = Head{Clean: p[12]&headClean != 0, Volume: [16]byte(p[16:]), Mark: binary.LittleEndian.Uint64(p[32:])}
	h.Settled, p = takeBarrier(p[40:])
	h.base, p = takeBarrier(p)
	boot, incs := int(binary.LittleEndian.Uint16(p)), int(binary.LittleEndian.Uint16(p[2:]))
	if p = p[4:]; len(p) != boot+incs*incSize+4 {
		return errors.New("log head has the wrong length")
	}
	h.BootID, p = string(p[:boot]), p[boot:]
	h.Incarnations = make([]Incarnation, incs)
	for i := range h.Incarnations {
		inc := &h.Incarnations[i]
		inc.ID, inc.First = LogID(p), binary.LittleEndian.Uint64(p[16:])
		inc.Last, p = takeBarrier(p[24:])
	}
	return h.validate()
}

// validate checks what recovery relies on: incarnations follow each other without a gap.
func (h *Head) validate() error {
	if h.base.Seq < h.Settled.Seq {
		return errors.New("log head: the log begins before what is settled")
	}
	for i, inc := range h.Incarnations {
		open := i == len(h.Incarnations)-1
		if inc.First == 0 || open != (inc.Last == Barrier{}) || !open && inc.Last.Seq+1 != h.Incarnations[i+1].First || !open && inc.Last.Seq+1 < inc.First {
			return errors.New("log head: incarnations do not follow each other")
		}
	}
	return nil
}

func appendBarrier(p []byte, b Barrier) []byte {
	p = append(p, b.Log[:]...)
	p = binary.LittleEndian.AppendUint64(p, b.Seq)
	return binary.LittleEndian.AppendUint32(p, b.Chain)
}

func takeBarrier(p []byte) (Barrier, []byte) {
	b := Barrier{LogID(p), binary.LittleEndian.Uint64(p[16:]), binary.LittleEndian.Uint32(p[24:])}
	return b, p[barrierSize:]
}

// loadHead returns nil when there is none.
func loadHead(o *Options) (*Head, error) {
	p, err := vfs.ReadFile(o.FS, filepath.Join(o.Dir, headName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	h := new(Head)
	if err := h.decode(p); err != nil {
		return nil, &DamageError{Dir: o.Dir, File: headName, Reason: err.Error()}
	}
	if h.Volume != o.Volume {
		return nil, fmt.Errorf("write log %s: %w", o.Dir, ErrForeign)
	}
	h.SameBoot = o.BootID != "" && h.BootID == o.BootID
	return h, nil
}

// incarnationOf returns the incarnation that seq belongs to, or nil.
func (h *Head) incarnationOf(seq uint64) *Incarnation {
	for i := len(h.Incarnations) - 1; i >= 0; i-- {
		if h.Incarnations[i].First <= seq {
			return &h.Incarnations[i]
		}
	}
	return nil
}

// byID returns the incarnation with that id, or nil.
func (h *Head) byID(id LogID) *Incarnation {
	i := slices.IndexFunc(h.Incarnations, func(inc Incarnation) bool { return inc.ID == id })
	if i < 0 {
		return nil
	}
	return &h.Incarnations[i]
}
