package store_test

import (
	"testing"

	"glidefs-appliance/backend/store"
	"glidefs-appliance/backend/store/mem"
	"glidefs-appliance/backend/store/storetest"
)

func TestContract(t *testing.T) {
	for name, wrap := range map[string]func(store.Store) store.Store{
		"gateway": func(s store.Store) store.Store { return store.NewGateway(s, store.GatewayOptions{}) },
		"gateway of one slot": func(s store.Store) store.Store {
			return store.NewGateway(s, store.GatewayOptions{Concurrency: 1, UploadLimit: 1 << 30, DownloadLimit: 1 << 30})
		},
		"retry":   func(s store.Store) store.Store { return store.NewRetry(s) },
		"breaker": func(s store.Store) store.Store { return store.NewBreaker(s, nil) },
		"bound":   func(s store.Store) store.Store { return store.NewBound(s) },
		"stack":   func(s store.Store) store.Store { return store.NewStack(s, store.StackOptions{}) },
		"fault":   func(s store.Store) store.Store { return storetest.NewFault(s) },
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) store.Store { return wrap(mem.New()) })
		})
	}
}
