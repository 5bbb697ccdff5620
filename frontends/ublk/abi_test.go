package ublk

import (
	"testing"
	"unsafe"
)

func TestLayout(t *testing.T) {
	var (
		c  ctrlCmd
		i  devInfo
		p  devParams
		d  ioDesc
		io ioCmd
	)
	basic, discard := unsafe.Offsetof(p.basic), unsafe.Offsetof(p.discard)
	for _, x := range []struct {
		what      string
		got, want uintptr
	}{
		{"ctrlCmd", unsafe.Sizeof(c), 32},
		{"ctrlCmd.len", unsafe.Offsetof(c.len), 6},
		{"ctrlCmd.addr", unsafe.Offsetof(c.addr), 8},
		{"ctrlCmd.data", unsafe.Offsetof(c.data), 16},
		{"ctrlCmd.devPathLen", unsafe.Offsetof(c.devPathLen), 24},
		{"devInfo", unsafe.Sizeof(i), 64},
		{"devInfo.State", unsafe.Offsetof(i.State), 4},
		{"devInfo.MaxIOBytes", unsafe.Offsetof(i.MaxIOBytes), 8},
		{"devInfo.ID", unsafe.Offsetof(i.ID), 12},
		{"devInfo.PID", unsafe.Offsetof(i.PID), 16},
		{"devInfo.Flags", unsafe.Offsetof(i.Flags), 24},
		{"devInfo.Cookie", unsafe.Offsetof(i.Cookie), 32},
		{"devInfo.OwnerUID", unsafe.Offsetof(i.OwnerUID), 40},
		{"params.basic", basic, 8},
		{"params.basic.logicalShift", basic + unsafe.Offsetof(p.basic.logicalShift), 12},
		{"params.basic.maxSectors", basic + unsafe.Offsetof(p.basic.maxSectors), 16},
		{"params.basic.devSectors", basic + unsafe.Offsetof(p.basic.devSectors), 24},
		{"params.discard", discard, 40},
		{"params.discard.maxSegments", discard + unsafe.Offsetof(p.discard.maxSegments), 56},
		{"params.dmaAlign", unsafe.Offsetof(p.dmaAlign), 108},
		{"params.len", paramsLen, 116},
		{"ioDesc", unsafe.Sizeof(d), 24},
		{"ioDesc.sectors", unsafe.Offsetof(d.sectors), 4},
		{"ioDesc.start", unsafe.Offsetof(d.start), 8},
		{"ioCmd", unsafe.Sizeof(io), 16},
		{"ioCmd.tag", unsafe.Offsetof(io.tag), 2},
		{"ioCmd.result", unsafe.Offsetof(io.result), 4},
	} {
		if x.got != x.want {
			t.Errorf("%s: %d, want %d", x.what, x.got, x.want)
		}
	}
}

func TestAutoBufWord(t *testing.T) {
	for i := range 1 << 16 {
		w := autoBufWord(uint16(i))
		if w&0xffff != uint64(i) || w>>16 != 1 {
			t.Fatalf("slot %d: word %#x", i, w)
		}
	}
}

func TestDescStride(t *testing.T) {
	for page, want := range map[int64]int64{4096: 0x18000, 65536: 131072} {
		if got := descStride(page); got != want {
			t.Errorf("pages of %d: %#x, want %#x", page, got, want)
		}
	}
}

func TestCopyOffset(t *testing.T) {
	if got := copyOffset(3, 5, 4096); got != 0x80000000+3<<41+5<<25+4096 {
		t.Errorf("%#x", got)
	}
}
