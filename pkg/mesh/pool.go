package mesh

import (
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// balancing is how a client balances; the same for all app-ids.
type balancing struct {
	balancer  Balancer
	zone      string // this client's; empty: none
	self      string // this client's instance id; it is left out where the client has a handler of its own
	slowStart time.Duration
	ejection  Ejection
	clock     func() time.Duration // monotonic, never 0
	rand      func() uint64
	log       *slog.Logger
	ejections func(appID string, reason ejectionReason)
	circuits  func(CircuitChange) // nil: nobody asks
	policies  *policies
}

// A pool is the instances of one app-id with what a client knows of them. Picks read an immutable view of it; the view
// is replaced, under a lock, when the directory has another set or an ejection begins or ends.
type pool struct {
	balancing
	appID   string
	current func() *group // what the directory has now; nil: no such app-id

	policy     *Policy
	budget     *budget
	breaker    *breaker
	bulkhead   *bulkhead     // nil: nothing is bounded
	latencies  *latencies    // nil: nobody asks
	retries    atomic.Uint64 // further attempts that were made
	overBudget atomic.Uint64 // and those that were not
	hedges     atomic.Uint64 // second attempts beside a first one
	hedgesWon  atomic.Uint64

	view atomic.Pointer[view]

	mu         sync.Mutex
	instances  map[string]*Instance
	retired    uint64        // picks of instances that are gone
	complained time.Duration // when the log was told last that the target fails
}

// A view is what picks of an app-id read.
type view struct {
	group    *group
	until    time.Duration // when an ejection ends, and a view has to be made anew
	everyone routes
	others   routes // without this node itself; only where it is among them
}

// routes are the choices of an app-id: those of all its usable instances, and those of services that not all run.
type routes struct {
	all       *choice
	byService map[string]*choice
}

func (r routes) of(service string) *choice {
	if c := r.byService[service]; c != nil {
		return c
	}
	return r.all
}

// A choice is where a request may go: nil when there is nowhere.
type choice struct {
	instances []*Instance
	panic     bool // ejected ones are among them
	near, far Picker
	nearShare float64 // what stays in this client's zone; 1: far is nil
}

func newPool(b balancing, appID string, current func() *group) *pool {
	policy := b.policies.of(appID)
	p := &pool{balancing: b, appID: appID, current: current, instances: map[string]*Instance{},
		policy: policy, budget: newBudget(&policy.Retry), bulkhead: newBulkhead(policy.Bulkhead, appID)}
	p.breaker = newBreaker(policy.Breaker, p.hopeless)
	p.breaker.told = func(open bool) {
		if open {
			p.log.Warn("calls are not made for a while: every instance fails", "appId", appID, "time", p.breaker.OpenFor)
		} else {
			p.log.Info("calls are made again", "appId", appID)
		}
	}
	if policy.Hedge.On && policy.Hedge.Delay == 0 {
		p.latencies = new(latencies)
	}
	return p
}

// responded notes how long a response took to begin.
func (p *pool) responded(took time.Duration) {
	if p.latencies != nil {
		p.latencies.add(took)
	}
}

// hopeless reports whether no usable instance has answered well since its last failure.
func (p *pool) hopeless() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, in := range p.instances {
		if in.id != p.self && in.usable && in.inARow.Load() == 0 {
			return false
		}
	}
	return true
}

// viewOf returns the view of a group that the directory has, or of a newer one.
func (p *pool) viewOf(g *group, now time.Duration) *view {
	if v := p.view.Load(); v != nil && v.group == g && now < v.until {
		return v
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	newest := p.current()
	if newest == nil {
		newest = &group{}
	}
	if v := p.view.Load(); v != nil && v.group == newest && now < v.until {
		return v
	}
	return p.renew(newest, now)
}

// renew makes a view, with the lock held.
func (p *pool) renew(g *group, now time.Duration) *view {
	p.meet(g, now)
	v := &view{group: g, until: math.MaxInt64}
	for _, in := range p.instances {
		if until := time.Duration(in.ejected.Load()); until != 0 {
			v.until = min(v.until, until)
		}
	}
	v.everyone = p.routes(g, "")
	if p.self != "" && p.instances[p.self] != nil {
		v.others = p.routes(g, p.self)
	} else {
		v.others = v.everyone
	}
	p.view.Store(v)
	return v
}

// meet takes in who came, who left, and whose ejection is over.
func (p *pool) meet(g *group, now time.Duration) {
	first := p.view.Load() == nil // all are new: none is newer than the others
	known := make(map[string]*Instance, len(g.all))
	for _, e := range g.all {
		in := p.instances[e.InstanceID]
		if address := e.Address(); in == nil || in.address != address {
			in = &Instance{id: e.InstanceID, address: address, pool: p}
			in.updated.Store(int64(now))
		}
		in.endpoint.Store(e)
		if until := in.ejected.Load(); until != 0 && int64(now) >= until {
			in.pardon(now)
			p.circuitOf(in, BreakerOpen, BreakerHalfOpen, "its ejection is over")
			p.breaker.hope()
			p.log.Info("an instance gets requests again", "appId", p.appID, "instanceId", in.id)
		}
		usable := slices.Contains(g.usable, e)
		if usable && !in.usable && !first {
			in.startSlowly(now)
			p.breaker.hope()
		}
		in.usable = usable
		known[in.id] = in
	}
	for id, in := range p.instances {
		if known[id] != in {
			p.retired += in.picked.Load()
		}
	}
	p.instances = known
}

// pardon lets an ejected instance begin anew, on trial: its latency is remembered, its failures are not.
func (in *Instance) pardon(now time.Duration) {
	in.again.ended = now
	in.window.clear()
	in.inARow.Store(0)
	in.onTrial.Store(true)
	in.forgive()
	in.startSlowly(now)
	in.ejected.Store(0)
}

// eject leaves an instance out for a while, if it is still an outlier.
func (p *pool) eject(in *Instance, reason ejectionReason, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if in.ejected.Load() != 0 || p.instances[in.id] != in {
		return
	}
	if !p.stands(in, now) {
		p.complain(in, reason, now)
		return
	}
	length := in.again.next(now, &p.ejection)
	in.ejected.Store(int64(now + length))
	g := p.current()
	if g == nil {
		g = &group{}
	}
	p.renew(g, now)
	p.log.Warn("an instance fails and gets no requests for a while", "appId", p.appID, "instanceId", in.id,
		"address", in.address, "reason", string(reason), "time", length)
	if p.ejections != nil {
		p.ejections(p.appID, reason)
	}
	before := BreakerClosed
	if reason == ejectedAgain {
		before = BreakerHalfOpen
	}
	p.circuitOf(in, before, BreakerOpen, reason.sentence())
}

// complainEvery bounds how often a target is complained of.
const complainEvery = time.Minute

// complain tells of an instance that fails and is called nevertheless, with the lock held: nothing else would show in the log.
func (p *pool) complain(in *Instance, reason ejectionReason, now time.Duration) {
	if p.complained != 0 && now-p.complained < complainEvery {
		return
	}
	p.complained = now
	p.log.Warn("an instance fails and is called nevertheless: no other does better", "appId", p.appID, "instanceId", in.id,
		"address", in.address, "reason", reason.sentence())
}

// stands reports whether an instance is an outlier: whether there is another to go to that fails less than half as often.
func (p *pool) stands(in *Instance, now time.Duration) bool {
	share := in.failureShare(now)
	if share == 0 {
		share = 1 // its failures are older than the window, and nothing came since
	}
	for _, other := range p.instances {
		if other != in && other.id != p.self && other.usable && other.ejected.Load() == 0 && other.failureShare(now) < share/2 {
			return true
		}
	}
	return false
}

func (p *pool) routes(g *group, without string) routes {
	r := routes{all: p.choose(g, "", g.usable, without)}
	for service, usable := range g.byService {
		if r.byService == nil {
			r.byService = make(map[string]*choice, len(g.byService))
		}
		r.byService[service] = p.choose(g, service, usable, without)
	}
	return r
}

// choose decides among which instances requests to a service are balanced.
func (p *pool) choose(g *group, service string, usable []*Endpoint, without string) *choice {
	var all, free []*Instance
	for _, e := range usable {
		if e.InstanceID == without {
			continue
		}
		in := p.instances[e.InstanceID]
		all = append(all, in)
		if in.ejected.Load() == 0 {
			free = append(free, in)
		}
	}
	if len(all) == 0 {
		return &choice{}
	}
	c := &choice{instances: free, nearShare: 1}
	if len(free) == 0 || float64(len(free)) < p.ejection.PanicBelow*float64(len(all)) {
		c.instances, c.panic = all, true
	}
	near, far := p.byZone(c.instances)
	if len(near) == 0 || len(far) == 0 {
		c.near = p.balancer.Picker(c.instances)
		return c
	}
	c.nearShare = p.nearShare(g, service, free, without)
	c.near = p.balancer.Picker(near)
	if c.nearShare < 1 {
		c.far = p.balancer.Picker(far)
	}
	return c
}

// pick chooses an instance, if possible none of those that were tried. It returns nil when there is none.
func (p *pool) pick(c *choice, now time.Duration, tried ...*Instance) *Instance {
	if len(c.instances) == 0 {
		return nil
	}
	if len(tried) == 0 {
		return c.pick(now, p.rand)
	}
	for range redraws {
		if in := c.pick(now, p.rand); in != nil && !slices.Contains(tried, in) {
			return in
		}
	}
	left := slices.DeleteFunc(slices.Clone(c.instances), func(in *Instance) bool { return slices.Contains(tried, in) })
	if len(left) == 0 {
		return nil
	}
	return p.balancer.Picker(left).Pick(now)
}

// offersOther reports whether there is an instance that was not tried.
func (c *choice) offersOther(tried []*Instance) bool {
	return slices.ContainsFunc(c.instances, func(in *Instance) bool { return !slices.Contains(tried, in) })
}

func (c *choice) pick(now time.Duration, random func() uint64) *Instance {
	if c.far != nil && float64(random()>>11)/(1<<53) >= c.nearShare {
		return c.far.Pick(now)
	}
	return c.near.Pick(now)
}
