package uring

import (
	"testing"
	"unsafe"
)

func TestLayout(t *testing.T) {
	var (
		s  SQE
		c  CQE
		p  params
		a  getEventsArg
		rr rsrcRegister
	)
	for _, x := range []struct {
		what      string
		got, want uintptr
	}{
		{"SQE", unsafe.Sizeof(s), 64},
		{"SQE.fd", unsafe.Offsetof(s.fd), 4},
		{"SQE.off", unsafe.Offsetof(s.off), 8},
		{"SQE.addr", unsafe.Offsetof(s.addr), 16},
		{"SQE.len", unsafe.Offsetof(s.len), 24},
		{"SQE.opFlags", unsafe.Offsetof(s.opFlags), 28},
		{"SQE.UserData", unsafe.Offsetof(s.UserData), 32},
		{"SQE.bufIndex", unsafe.Offsetof(s.bufIndex), 40},
		{"SQE.cmd", unsafe.Offsetof(s.cmd), 48},
		{"CQE", unsafe.Sizeof(c), 16},
		{"CQE.Res", unsafe.Offsetof(c.Res), 8},
		{"CQE.Flags", unsafe.Offsetof(c.Flags), 12},
		{"params", unsafe.Sizeof(p), 120},
		{"params.features", unsafe.Offsetof(p.features), 20},
		{"params.sq", unsafe.Offsetof(p.sq), 40},
		{"params.cq", unsafe.Offsetof(p.cq), 80},
		{"params.sq.array", unsafe.Offsetof(p.sq.array), 24},
		{"params.cq.cqes", unsafe.Offsetof(p.cq.cqes), 20},
		{"getEventsArg", unsafe.Sizeof(a), 24},
		{"getEventsArg.ts", unsafe.Offsetof(a.ts), 16},
		{"rsrcRegister", unsafe.Sizeof(rr), 32},
		{"rsrcRegister.data", unsafe.Offsetof(rr.data), 16},
	} {
		if x.got != x.want {
			t.Errorf("%s: %d, want %d", x.what, x.got, x.want)
		}
	}
}
