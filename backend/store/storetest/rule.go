package storetest

import (
	"strings"

	"glidefs-appliance/backend/store"
)

// Rule is a fault in force. It ends when its uses are spent or by Remove.
type Rule struct {
	f     *Fault
	match Match
	do    Action
	left  int // uses; < 0: without end
	used  int
}

// Match selects requests.
type Match func(Request) bool

// On matches an operation on keys that begin with prefix.
func On(op store.Op, prefix string) Match {
	return func(q Request) bool { return q.Op == op && strings.HasPrefix(q.Key, prefix) }
}

// Any matches every request.
func Any() Match { return func(Request) bool { return true } }

// Once lets the next request that matches do a.
func (f *Fault) Once(m Match, a Action) *Rule { return f.Times(1, m, a) }

// Always lets every request that matches do a, until the rule is removed.
func (f *Fault) Always(m Match, a Action) *Rule { return f.Times(-1, m, a) }

// Times lets the next n requests that match do a.
func (f *Fault) Times(n int, m Match, a Action) *Rule {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &Rule{f: f, match: m, do: a, left: n}
	f.mu.rules = append(f.mu.rules, r)
	return r
}

// Unplug makes the store unreachable, whatever the other rules say: every request fails with store.ErrUnavailable until
// the rule is removed.
func (f *Fault) Unplug() *Rule {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &Rule{f: f, match: Any(), do: Unavailable(), left: -1}
	f.mu.rules = append([]*Rule{r}, f.mu.rules...)
	return r
}

// Remove ends the rule. Requests it has caught go on as they were.
func (r *Rule) Remove() {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	r.left = 0
}

// Used is the number of requests it caught.
func (r *Rule) Used() int {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return r.used
}

// Clear removes all rules.
func (f *Fault) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.rules = nil
}

// takeLocked uses the rule for q if it matches. The lock is the Fault's.
func (r *Rule) takeLocked(q Request) bool {
	if r.left == 0 || !r.match(q) {
		return false
	}
	r.left--
	r.used++
	return true
}
