package mesh

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// A Balancer chooses one of several instances of one app-id. It decides among those it is given: which instances are
// usable, ejected or in another zone is settled before. It is safe for concurrent use.
type Balancer interface {
	// Picker returns what picks among some instances, at least one. It is called when the set or what the registry says
	// of one has changed, so it may take its time, and it keeps the slice, which nobody changes.
	Picker(instances []*Instance) Picker
}

// A Picker picks for every request, from many goroutines at once: it takes no lock, allocates nothing and does no I/O.
type Picker interface {
	// Pick returns one of the instances. now is the client's clock, as the methods of Instance take it.
	Pick(now time.Duration) *Instance
}

// The names of the balancers, for configurations.
const (
	NameRoundRobin       = "round-robin"
	NameLeastConnections = "least-connections"
	NameWeighted         = "weighted"
	NamePeakEWMA         = "p2c"
)

// BalancerNames are the names that BalancerNamed knows, the default first.
func BalancerNames() []string {
	return []string{NamePeakEWMA, NameLeastConnections, NameWeighted, NameRoundRobin}
}

// BalancerNamed returns the balancer of a name; an empty one is the default, p2c.
func BalancerNamed(name string) (Balancer, error) {
	switch name {
	case NamePeakEWMA, "":
		return PeakEWMA(), nil
	case NameLeastConnections:
		return LeastConnections(), nil
	case NameWeighted:
		return Weighted(), nil
	case NameRoundRobin:
		return RoundRobin(), nil
	default:
		return nil, fmt.Errorf("balancer %q is not known: choose %s", clip(name), strings.Join(BalancerNames(), ", "))
	}
}

// redraws is how often a picker looks for another instance than one that starts slowly.
const redraws = 3

// RoundRobin returns a balancer that takes the instances in turn: while the set stands, any n consecutive picks among n
// instances are n different ones. One that starts slowly leaves some of its turns to others,
// chosen by chance.
func RoundRobin() Balancer { return roundRobin{rand.Uint64} }

type roundRobin struct{ rand func() uint64 }

func (b roundRobin) Picker(instances []*Instance) Picker {
	return newCycle(instances, b.rand)
}

// A cycle takes the members of a list in turn.
type cycle struct {
	turns []*Instance
	rand  func() uint64
	_     [64]byte // next is written by every pick, the rest only read
	next  atomic.Uint64
}

// newCycle begins anywhere: many clients that start together do not begin with the same instance.
func newCycle(turns []*Instance, random func() uint64) *cycle {
	c := &cycle{turns: turns, rand: random}
	c.next.Store(random() % uint64(len(turns)))
	return c
}

func (c *cycle) Pick(now time.Duration) *Instance {
	in := c.turn()
	for try := 0; try < redraws && !in.admits(now, c.rand); try++ {
		in = c.turns[c.rand()%uint64(len(c.turns))] // not the next one, which would have two turns each time
	}
	return in
}

func (c *cycle) turn() *Instance {
	if len(c.turns) == 1 {
		return c.turns[0]
	}
	return c.turns[(c.next.Add(1)-1)%uint64(len(c.turns))]
}

// LeastConnections returns a balancer that takes an instance with the fewest requests in flight from this client; one
// that starts slowly counts as if it had more. Among equals chance decides. A Pick looks at every instance until it
// finds one without requests.
func LeastConnections() Balancer { return leastConnections{rand.Uint64} }

type leastConnections struct{ rand func() uint64 }

func (b leastConnections) Picker(instances []*Instance) Picker {
	return &fewest{instances: instances, rand: b.rand}
}

type fewest struct {
	instances []*Instance
	rand      func() uint64
}

func (f *fewest) Pick(now time.Duration) *Instance {
	n := uint64(len(f.instances))
	first := f.rand() % n
	var best *Instance
	least := 0.0
	for i := range n {
		at := first + i
		if at >= n {
			at -= n
		}
		in := f.instances[at]
		load := float64(in.InFlight()+1) / in.Share(now)
		if best == nil || load < least {
			best, least = in, load
		}
		if load <= 1 {
			return in
		}
	}
	return best
}

// Weighted returns a balancer that gives each instance requests in proportion to what it can take: the capacity that it
// reports (maxConnections; the mean of the others if it reports none) less its reported load, and a tenth of its capacity
// at least. Turns of one instance are spread evenly over the round. Reports are as old as a heartbeat: see
// [HeartbeatInterval].
func Weighted() Balancer { return weighted{rand.Uint64} }

type weighted struct{ rand func() uint64 }

// turnsOfLargest is how many turns in a round the instance with the largest weight has.
const turnsOfLargest = 32

func (b weighted) Picker(instances []*Instance) Picker {
	return newCycle(smooth(instances, weights(instances)), b.rand)
}

func weights(instances []*Instance) []float64 {
	known, sum := 0, 0
	for _, in := range instances {
		if most := in.Endpoint().MaxConnections; most > 0 {
			known, sum = known+1, sum+most
		}
	}
	mean := 1.0
	if known > 0 {
		mean = float64(sum) / float64(known)
	}
	all := make([]float64, len(instances))
	for i, in := range instances {
		e := in.Endpoint()
		all[i] = mean
		if e.MaxConnections > 0 {
			all[i] = float64(e.MaxConnections)
		}
		all[i] *= max(0.1, 1-e.LoadPercent/100)
	}
	return all
}

// smooth lays a round out: an instance with k turns has them in the middle of k equal parts of the round. Made once a
// set, it spares the picks the lock that keeping score of credits would take.
func smooth(instances []*Instance, weights []float64) []*Instance {
	type turn struct {
		at float64
		in *Instance
	}
	largest := slices.Max(weights)
	var turns []turn
	for i, in := range instances {
		k := max(1, int(turnsOfLargest*weights[i]/largest+0.5))
		for n := range k {
			turns = append(turns, turn{(float64(n) + 0.5) / float64(k), in})
		}
	}
	slices.SortStableFunc(turns, func(a, b turn) int {
		switch {
		case a.at < b.at:
			return -1
		case a.at > b.at:
			return 1
		default:
			return 0
		}
	})
	round := make([]*Instance, len(turns))
	for i, t := range turns {
		round[i] = t.in
	}
	return round
}
