package dir_test

import (
	"testing"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/dir"
	"glidefs-appliance/backend/store/storetest"
)

func open(t *testing.T, path string) *dir.Store {
	t.Helper()
	s, err := dir.Open(path, true)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, t.TempDir()) })
}

func TestContractOfAKnownStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		path := t.TempDir()
		if _, err := open(t, path).Now(t.Context()); err != nil { // something that writes
			t.Fatal(err)
		}
		s, err := dir.OpenKnown(path)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
