package mem

import (
	"sync"
	"time"
)

var registry struct {
	sync.Mutex
	stores map[string]*Store
}

// Open returns the store of that name in this process, making it at first use: mem://name opened twice is one store.
func Open(name string) *Store {
	registry.Lock()
	defer registry.Unlock()
	if registry.stores == nil {
		registry.stores = map[string]*Store{}
	}
	if registry.stores[name] == nil {
		registry.stores[name] = NewClock(name, time.Now)
	}
	return registry.stores[name]
}

// Forget drops the store of that name; those who hold it keep it.
func Forget(name string) {
	registry.Lock()
	defer registry.Unlock()
	delete(registry.stores, name)
}
