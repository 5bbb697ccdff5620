package mem_test

import (
	"testing"
	"testing/synctest"
	"time"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return mem.New() })
}

func TestClockIsVirtualInsideSynctest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		a, err := s.Put(t.Context(), "a", nil, store.Condition{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		b, err := s.Put(t.Context(), "b", nil, store.Condition{})
		if err != nil {
			t.Fatal(err)
		}
		if d := b.Modified.Sub(a.Modified); d != time.Hour {
			t.Fatalf("an hour took %s", d)
		}
	})
}

func TestOneStorePerName(t *testing.T) {
	a, b := mem.Open(t.Name()), mem.Open(t.Name())
	if a != b {
		t.Fatal("mem://name opened twice gave two stores")
	}
	mem.Forget(t.Name())
	if mem.Open(t.Name()) == a {
		t.Fatal("a forgotten store came back")
	}
}

func TestFolderRuleIsStrict(t *testing.T) {
	s := mem.New()
	for _, k := range []string{"a/b", "c"} {
		if _, err := s.Put(t.Context(), k, nil, store.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range []string{"a", "a/b/c", "c/d"} {
		if _, err := s.Put(t.Context(), k, nil, store.Condition{}); err == nil {
			t.Errorf("put %s succeeded", k)
		}
	}
	if err := s.Delete(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), "a", nil, store.Condition{}); err != nil {
		t.Fatal(err)
	}
}
