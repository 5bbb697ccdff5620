// Package manifest keeps the roots of volumes: the manifest itself, the conditional PUT that replaces it, and the map pages below it.
//
// # Objects
//
//	volumes/<name>/manifest                     one volume, or its tombstone; replaced by conditional PUT only, through a Cell, and
//	                                            never deleted
//	volumes/<name>/snapshots/<seq, 20 digits>   a manifest, written once
//	images/<name>, trash/<...>                  manifests too
//	maps/<first 2 hex>/<hash>                   map pages, immutable
//	writers/<...>                               who writes objects for a volume that is not there yet, see Announce
//
//	manifest --> Tail    newest first: packs not merged yet, some of them inside the manifest (Inline)
//	         \-> Levels  newest first: each a run of packs that do not overlap, in map pages
//
//	                 [ page, depth 1 ]          up to 512 children each, in address order
//	                  /      |      \
//	           [ page 0 ] [ page 0 ] ...        up to 512 pack.Refs each, in address order
//
// # Manifest, version 1
//
// Integers are little endian; a string is a uvarint length and its bytes; a time is nanoseconds since 1970 as i64, the zero Time is 0.
//
//	magic "glidevol" | version u32 | zero u32 | Nonce 16 | Volume 16 | Name string | Size u64 | Sector u32 | Epoch u64
//	Owner.State 16 | Owner.Host string | Since time | flags u8 (1: Closed, 2: Deleted) | Created time
//	Log 16 | Barrier.Log 16 | Barrier.Seq u64 | Barrier.Chain u32 | BarrierTime time
//	#tail uvarint   { pack.Ref, pack.RefLen bytes | Inline string }
//	#levels uvarint { Page 32 | Depth u8 | Packs u64 | Bytes u64 | Sectors u64 }
//	sections until the sum { tag uvarint | string }, ascending tags
//	BLAKE3-256 of all bytes before
//
// Sections are how later features (forks with a base, key ids for encryption) fit in: a program that meets a tag it does not know
// refuses (ErrVersion) if the tag is below 128, and keeps the bytes as they are otherwise.
//
// # Map page, version 1
//
//	magic "glidemap" | version u32 | depth u8 | zero u8 | #entries u16 | random 16 | entries
//	  entry at depth 0   pack.Ref
//	  entry above        Page 32 | First u64 | End u64 | Packs u64 | Bytes u64 | Sectors u64
//
// A page is named by the BLAKE3-256 of all its bytes, and verified against it whenever it comes from the store.
//
// # Locks
//
//	Cell.turn     held by Replace, across requests and build; waiting for it ends with the context; Current does without
//	  Pages.mu    guards the loads in flight; never held across a request; no other lock is taken under it
package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"glidefs-appliance/backend/pack"
)

var (
	// ErrDamaged: bytes in the store are not what their sum, their name or the format says. The same as pack.ErrDamaged.
	ErrDamaged = pack.ErrDamaged
	// ErrVersion: written by a newer program; the message names what is unknown. The same as pack.ErrVersion.
	ErrVersion = pack.ErrVersion
	// ErrExists: Create found a volume of that name.
	ErrExists = errors.New("volume exists already")
	// ErrDeleting: the volume is neither there nor gone; deleting it again finishes that.
	ErrDeleting = errors.New("volume is being deleted")
	// ErrFenced: somebody else replaced the manifest, or it is gone; see FencedError.
	ErrFenced = errors.New("manifest was replaced by another writer")
	// ErrUnsettled: it is not known yet whether an update took place. The Cell remembers it and settles it first, next time.
	ErrUnsettled = errors.New("manifest update is not settled")
	// ErrLate: the objects that an update names may have been collected as garbage before it could name them: write them again.
	ErrLate = errors.New("manifest update came too late")
)

// Grace is how long an object that nothing names is kept. Whoever adds references finishes within a quarter of it, by the store's clock.
const Grace = 7 * 24 * time.Hour

// Owner is who writes: a state directory on a host.
type Owner struct {
	State [16]byte // random id of the state directory
	Host  string   // for messages
}

// Barrier names a record of a write log: the manifest is exact up to it.
type Barrier struct {
	Log   [16]byte // the incarnation
	Seq   uint64
	Chain uint32 // the record's chained checksum
}

// TailEntry is a pack that is in no level yet.
type TailEntry struct {
	Ref    pack.Ref
	Inline []byte // the whole object when it rides in the manifest; then no object of that name is in the store. Immutable.
}

// Root is the top of a level; the zero Root is an empty one.
type Root struct {
	Page    [32]byte // hash of the page
	Depth   uint8    // of the page; 0 is a leaf
	Packs   uint64
	Bytes   uint64 // of the packs
	Sectors uint64 // with data
}

// Section is a part of a manifest that this program does not interpret; see the package comment.
type Section struct {
	Tag  uint64
	Data []byte
}

// Manifest is the root of a volume. One that a Cell or Decode returned is immutable; Clone it to change it.
type Manifest struct {
	Volume      [16]byte // random id
	Name        string
	Size        int64 // bytes, whole sectors
	Sector      int   // bytes
	Epoch       uint64
	Owner       Owner
	Since       time.Time // attached
	Closed      bool      // detached in order
	Deleted     bool      // nobody may attach it any more; it will be in the trash in a moment, or is, see Tombstone
	Log         [16]byte  // the incarnation that writes now
	Barrier     Barrier
	BarrierTime time.Time
	Created     time.Time
	Tail        []TailEntry // newest first
	Levels      []Root      // newest first
	Nonce       [16]byte    // random in each update, so that no two bodies are equal; set by the Cell
	Extra       []Section   // ascending tags
}

// Clone returns a copy that shares only the Inline and Section bytes, which are immutable.
func (m *Manifest) Clone() *Manifest {
	c := *m
	c.Tail, c.Levels, c.Extra = slices.Clone(m.Tail), slices.Clone(m.Levels), slices.Clone(m.Extra)
	return &c
}

// check holds what every manifest must satisfy, coming and going.
func (m *Manifest) check() error {
	if err := ValidName(m.Name); err != nil {
		return err
	}
	if m.Sector != 512 && m.Sector != 4096 || m.Size <= 0 || m.Size%int64(m.Sector) != 0 {
		return fmt.Errorf("size %d with sectors of %d", m.Size, m.Sector)
	}
	if len(m.Owner.Host) > maxHost {
		return fmt.Errorf("host name of %d bytes", len(m.Owner.Host))
	}
	for i, r := range m.Levels {
		if (r.Packs == 0) != (r == Root{}) || r.Depth > maxDepth {
			return fmt.Errorf("level %d: %+v", i, r)
		}
	}
	for i, s := range m.Extra {
		if i > 0 && m.Extra[i-1].Tag >= s.Tag {
			return fmt.Errorf("section %d after section %d", s.Tag, m.Extra[i-1].Tag)
		}
		if s.Tag < optionalTags {
			return fmt.Errorf("%w: section %d", ErrVersion, s.Tag)
		}
	}
	return nil
}

// Open tells that m has a writer, or had one that did not say goodbye: there may be objects that its next update names.
func (m *Manifest) Open() bool { return !m.Closed && !m.Deleted }

// Tombstone tells that m is no volume but marks the place of one that was deleted. Whoever makes a volume there replaces it under
// its ETag. [Were the object deleted instead, a DELETE that arrives late, after its retry, would take away the new volume; and a PUT
// that made the old one would bring it back.] So it stays: a few hundred bytes for each name that was ever used.
func (m *Manifest) Tombstone() bool { return m.Deleted && len(m.Tail) == 0 && len(m.Levels) == 0 }

// Bury makes m the tombstone of its volume.
func (m *Manifest) Bury() {
	m.Deleted, m.Tail, m.Levels, m.Extra = true, nil, nil, nil
}

const (
	maxName      = 64
	maxHost      = 255
	optionalTags = 128
)

// Key is where the manifest of a volume lies.
func Key(name string) string { return "volumes/" + name + "/manifest" }

// ValidName tells why name can't name a volume, a snapshot or an image: 1 to 64 of a-z 0-9 . _ -, beginning with a letter or a digit.
func ValidName(name string) error {
	if len(name) == 0 || len(name) > maxName {
		return fmt.Errorf("name %q: must have 1 to %d characters", name, maxName)
	}
	for i := range len(name) {
		c := name[i]
		alnum := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("._-", rune(c))) {
			return fmt.Errorf("name %q: only a-z, 0-9, '.', '_' and '-', beginning with a letter or a digit", name)
		}
	}
	return nil
}
