package manifest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zeebo/blake3"
)

func TestEncodeDecode(t *testing.T) {
	for _, m := range []*Manifest{sample("disk-1"), {Name: "a", Size: 512, Sector: 512}, {Name: "a", Size: 512, Sector: 512, Deleted: true}} {
		body := m.Encode()
		got, err := Decode(body)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(m, got); d != "" {
			t.Error(d)
		}
		if !bytes.Equal(got.Encode(), body) {
			t.Error("it encodes to something else again")
		}
	}
}

func TestCloneIsDeep(t *testing.T) {
	m := sample("disk")
	before := m.Encode()
	c := m.Clone()
	c.Tail[0].Ref.Size++
	c.Levels[1].Packs++
	c.Extra[0].Tag++
	c.Tail = append(c.Tail, TailEntry{})
	if !bytes.Equal(m.Encode(), before) {
		t.Error("a change to the clone showed in the original")
	}
}

func TestDamagedManifest(t *testing.T) {
	body := sample("disk").Encode()
	for at := range body {
		bad := bytes.Clone(body)
		bad[at] ^= 1
		if _, err := Decode(bad); !errors.Is(err, ErrDamaged) {
			t.Fatalf("flip at %d: %v", at, err)
		}
		if _, err := Decode(body[:at]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut at %d: %v", at, err)
		}
	}
}

// resum gives a changed manifest a sum that fits.
func resum(body []byte) []byte {
	body = body[:len(body)-sumLen]
	sum := blake3.Sum256(body)
	return append(body, sum[:]...)
}

func TestImpossibleManifests(t *testing.T) {
	for name, change := range map[string]func(m *Manifest){
		"no name":        func(m *Manifest) { m.Name = "" },
		"bad name":       func(m *Manifest) { m.Name = "../x" },
		"long name":      func(m *Manifest) { m.Name = strings.Repeat("a", 65) },
		"no size":        func(m *Manifest) { m.Size = 0 },
		"negative size":  func(m *Manifest) { m.Size = -4096 },
		"half a sector":  func(m *Manifest) { m.Size = 4096 + 512 },
		"sector size":    func(m *Manifest) { m.Sector = 1024 },
		"long host":      func(m *Manifest) { m.Owner.Host = strings.Repeat("h", 256) },
		"empty level":    func(m *Manifest) { m.Levels[1].Packs = 0 },
		"deep level":     func(m *Manifest) { m.Levels[1].Depth = maxDepth + 1 },
		"order of tags":  func(m *Manifest) { m.Extra[0].Tag = 1000 },
		"impossible ref": func(m *Manifest) { m.Tail[0].Ref.End = 0 },
	} {
		m := sample("disk")
		change(m)
		if _, err := Decode(m.Encode()); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVersions(t *testing.T) {
	body := sample("disk").Encode()
	binary.LittleEndian.PutUint32(body[8:], 2)
	if _, err := Decode(resum(body)); !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), ": 2") {
		t.Errorf("version 2: %v", err)
	}
	m := sample("disk")
	m.Extra = []Section{{Tag: 127}}
	if _, err := Decode(m.Encode()); !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "section 127") {
		t.Errorf("mandatory section: %v", err)
	}
}

func TestValidName(t *testing.T) {
	for _, name := range []string{"a", "0", "vm-1.disk_2", "a..b", strings.Repeat("z", 64)} {
		if err := ValidName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", ".", "..", "-a", "_a", "A", "a/b", "a b", "é", "a\x00", "aé", strings.Repeat("z", 65)} {
		if err := ValidName(name); err == nil {
			t.Errorf("%q is valid", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range []*Manifest{sample("disk"), {Name: "a", Size: 512, Sector: 512}} {
		f.Add(m.Encode())
	}
	f.Add(resum(append([]byte(manifestMagic), make([]byte, 200)...)))
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) >= sumLen {
			body = resum(bytes.Clone(body)) // get past the sum
		}
		m, err := Decode(body)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(m.Encode(), body) {
			t.Fatal("it encodes to something else again")
		}
	})
}
