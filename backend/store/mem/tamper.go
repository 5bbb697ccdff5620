package mem

import "bytes"

// Tamper replaces the body of key with f's result behind the store's back: same ETag, same time. It is how a test
// damages an object. False if there is no such object.
func (s *Store) Tamper(key string, f func(body []byte) []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.mu.objects[key]
	if ok {
		o.body = bytes.Clone(f(bytes.Clone(o.body)))
		s.mu.objects[key] = o
	}
	return ok
}
