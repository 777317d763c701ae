package mesh

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// pools are a client's pools by app-id, read without a lock and replaced as a whole when one comes or goes.
type pools struct {
	mu      sync.Mutex
	current atomic.Pointer[map[string]*pool]
}

// pool returns the pool of an app-id, nil when the directory has no such app-id, which g says as of now.
func (c *Client) pool(appID string, g *group) *pool {
	if all := c.pools.current.Load(); all != nil {
		if p := (*all)[appID]; (p != nil) == (g != nil) {
			return p
		}
	} else if g == nil {
		return nil
	}
	return c.addPool(appID)
}

// addPool makes the pool of an app-id and forgets those of app-ids that are gone.
func (c *Client) addPool(appID string) *pool {
	c.pools.mu.Lock()
	defer c.pools.mu.Unlock()
	apps := c.directory.current.Load().apps
	next := map[string]*pool{}
	if all := c.pools.current.Load(); all != nil {
		maps.Copy(next, *all)
		maps.DeleteFunc(next, func(appID string, _ *pool) bool { return apps[appID] == nil })
	}
	if next[appID] == nil && apps[appID] != nil {
		next[appID] = newPool(c.balancing, appID, func() *group { return c.directory.current.Load().apps[appID] })
	}
	c.pools.current.Store(&next)
	c.keepOnly(next)
	return next[appID]
}

// keepOnly forgets what is kept by app-id beside the pools, of all but those that have one: app-ids come and go.
func (c *Client) keepOnly(all map[string]*pool) {
	kept := func(appID string) bool { return all[appID] != nil || appID == c.appID }
	if secured, ok := c.transport.(*tlsTransport); ok {
		secured.keep(kept)
	}
	c.telemetry.keep(kept)
}

// A TargetState is what a client knows of an app-id that it called.
type TargetState struct {
	AppID string
	// Panic: so few instances are left that those that are ejected get requests too.
	Panic bool
	// Picks is how many requests went to instances, those that are gone included.
	Picks uint64
	// Retries is how many of them were further attempts of a call, and RetriesRefused how many attempts there would have
	// been if the budget had allowed them; see [Retry].
	Retries, RetriesRefused uint64
	// Hedges are the second attempts beside a first one, see [Hedge], and HedgesWon those that were faster. Both are
	// further attempts, and are not among Retries.
	Hedges, HedgesWon uint64
	// Breaker is the state of the target's breaker, BreakerOpened how often it opened.
	Breaker       BreakerState
	BreakerOpened uint64
	// Calls, Waiting and Overloaded are the calls within the bulkhead, those before it, and those that it turned away; 0
	// without one.
	Calls, Waiting int
	Overloaded     uint64
	// Instances are those that the directory has, by instance id.
	Instances []InstanceState
}

// An InstanceState is what a client knows of an instance, see [Instance].
type InstanceState struct {
	InstanceID   string
	Zone         string
	Status       Status
	Picks        uint64
	InFlight     int
	Latency      time.Duration // 0: not known
	FailureShare float64
	Share        float64       // of its usual share of requests, below 1 in a slow start
	EjectedFor   time.Duration // how long yet; 0: it is not
	LastEjection time.Duration // length of the last ejection; 0: there was none
}

// Targets returns the state of every app-id that this client called and the directory still has, by app-id.
func (c *Client) Targets() []TargetState {
	all := c.pools.current.Load()
	if all == nil {
		return nil
	}
	apps, now := c.directory.current.Load().apps, c.balancing.clock()
	var states []TargetState
	for appID, p := range *all {
		if g := apps[appID]; g != nil {
			states = append(states, p.state(p.viewOf(g, now), now))
		}
	}
	slices.SortFunc(states, func(a, b TargetState) int { return cmp.Compare(a.AppID, b.AppID) })
	return states
}

func (p *pool) state(v *view, now time.Duration) TargetState {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := TargetState{AppID: p.appID, Panic: v.panics(), Picks: p.retired,
		Retries: p.retries.Load(), RetriesRefused: p.overBudget.Load(), Hedges: p.hedges.Load(), HedgesWon: p.hedgesWon.Load(),
		Breaker: p.breaker.state(now), BreakerOpened: p.breaker.opened.Load()}
	s.Calls, s.Waiting, s.Overloaded = p.bulkhead.counts()
	for _, in := range p.instances {
		f := in.figuresAt(now)
		e := in.Endpoint()
		i := InstanceState{InstanceID: in.id, Zone: e.Zone, Status: e.Status, Picks: in.picked.Load(), InFlight: in.InFlight(),
			Latency: time.Duration(f.latency), FailureShare: float64(f.failing), Share: in.Share(now), LastEjection: in.again.length}
		if until := time.Duration(in.ejected.Load()); until > now {
			i.EjectedFor = until - now
		}
		s.Picks += i.Picks
		s.Instances = append(s.Instances, i)
	}
	slices.SortFunc(s.Instances, func(a, b InstanceState) int { return cmp.Compare(a.InstanceID, b.InstanceID) })
	return s
}

// panics reports whether ejected instances get requests.
func (v *view) panics() bool {
	for _, r := range []routes{v.everyone, v.others} {
		if r.all.panic {
			return true
		}
		for _, c := range r.byService {
			if c.panic {
				return true
			}
		}
	}
	return false
}
