package mesh

import (
	"maps"
	"sync"
	"sync/atomic"
)

// A Balancer chooses one of several endpoints of one app-id. It is safe for concurrent use and is called for every
// request, so it takes no lock and does no I/O.
type Balancer interface {
	// Pick returns one of the endpoints, nil when there is none. It neither keeps nor changes the slice.
	Pick(endpoints []*Endpoint) *Endpoint
}

// RoundRobin returns a balancer that takes the endpoints of each app-id in turn. While the set stands, any n
// consecutive picks of an app-id with n endpoints are n different ones; when the set changes, the turn goes on in the new
// one. A Pick takes no lock and allocates nothing.
func RoundRobin() Balancer { return &roundRobin{} }

type roundRobin struct {
	turns atomic.Pointer[map[string]*atomic.Uint64] // by app-id; replaced as a whole when one is added
	mu    sync.Mutex                                // one addition at a time
}

func (b *roundRobin) Pick(endpoints []*Endpoint) *Endpoint {
	switch len(endpoints) {
	case 0:
		return nil
	case 1:
		return endpoints[0]
	}
	n := b.turn(endpoints[0].AppID).Add(1) - 1
	return endpoints[n%uint64(len(endpoints))]
}

func (b *roundRobin) turn(appID string) *atomic.Uint64 {
	if turns := b.turns.Load(); turns != nil {
		if t := (*turns)[appID]; t != nil {
			return t
		}
	}
	return b.add(appID)
}

func (b *roundRobin) add(appID string) *atomic.Uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := map[string]*atomic.Uint64{}
	if turns := b.turns.Load(); turns != nil {
		if t := (*turns)[appID]; t != nil {
			return t
		}
		next = maps.Clone(*turns)
	}
	t := new(atomic.Uint64)
	next[appID] = t
	b.turns.Store(&next)
	return t
}
