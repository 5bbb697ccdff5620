package store

// StackOptions configures a Stack.
type StackOptions struct {
	Gateway GatewayOptions
	// OnHealth, if not nil, is called when the store's health changes; it must not block.
	OnHealth func(Health)
}

// Stack is an implementation with everything in front of it that a process needs:
//
//	Retry       sends again; a request that waits between attempts holds no slot
//	Gateway     slots, priorities, bandwidth, counters: each attempt counts
//	Breaker     fails at once while the store is down; inside, so that waiting in the gateway is not held against it
//	Bound       gives a request that hangs an end
//	s3, dir, mem
type Stack struct {
	Store
	gateway *Gateway
	breaker *Breaker
}

// NewStack assembles the decorators around impl.
func NewStack(impl Store, o StackOptions) *Stack {
	b := NewBreaker(NewBound(impl), o.OnHealth)
	g := NewGateway(b, o.Gateway)
	return &Stack{Store: NewRetry(g), gateway: g, breaker: b}
}

// Health tells how the store was doing when it was last asked.
func (s *Stack) Health() Health { return s.breaker.Health() }

// Stats is a snapshot of the counters by class and operation.
func (s *Stack) Stats() *Stats { return s.gateway.Stats() }

// Writes tells of PUTs that fail, also while the rest is answered.
func (s *Stack) Writes() Outage { return s.breaker.Writes() }
