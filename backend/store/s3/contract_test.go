package s3_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/s3"
	"glidefs-appliance/backend/store/storetest"
)

func open(t testing.TB, url string) *s3.Store {
	t.Helper()
	c, err := s3.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	s, err := s3.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestContract runs on a real server. Each subtest has a prefix of its own in one bucket.
func TestContract(t *testing.T) {
	url := storetest.Versitygw(t)
	var n atomic.Int32
	storetest.Run(t, func(t *testing.T) store.Store {
		return open(t, strings.Replace(url, "?", fmt.Sprintf("/prefix/%d?", n.Add(1)), 1))
	})
}
