package mesh

import (
	"container/heap"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	update = flag.Bool("update", false, "write the simulation's table in docs/mesh.md anew")
	seed   = flag.Uint64("seed", 1, "of the simulation's chance")
)

// The simulation drives the client's own pools, balancers, figures and ejections by a virtual clock: every arrival, answer
// and deadline is an event. What is modelled is what is outside the client: instances with workers, queues and service
// times drawn by chance, and the network.
const (
	simInstances = 10
	simClients   = 4 // processes, each with figures of its own
	simWorkers   = 8 // of an instance
	simQueue     = 64
	simService   = 10 * time.Millisecond // mean of an exponential distribution
	simNetwork   = 100 * time.Microsecond
	simDeadline  = time.Second
	simRate      = 3000             // requests a second, of all clients; ten healthy instances can take 8000
	simRefresh   = 15 * time.Second // of the directories
)

// The instances that are in trouble, from simTrouble on.
const (
	simTrouble    = 5 * time.Second
	simSlow       = 0 // twenty times as long
	simFailing    = 1 // answers 500 in 0.2 ms
	simReturning  = 2 // refuses connections from 10 s to 25 s, then takes five times as long, less and less for 10 s
	simOverloaded = 3 // others keep all but one of its workers busy
	simDown       = 10 * time.Second
	simBack       = 25 * time.Second
)

// simLength is how long requests arrive. A short run, as under the race detector, sees the trouble begin.
func simLength() time.Duration {
	if testing.Short() {
		return 12 * time.Second
	}
	return time.Minute
}

type simulation struct {
	now     time.Duration
	length  time.Duration
	events  eventQueue
	serial  int
	random  *rand.Rand
	servers []*simServer
	pools   []*pool
	group   *group

	latencies []time.Duration // of successes
	requests  int
	failures  int
	sent      [simInstances]int // requests to each instance from simTrouble on
	total     int               // those from simTrouble on
	astray    int               // requests to ejected instances outside panic
	panics    int               // requests in panic
	ejections int
}

// A simServer is an instance.
type simServer struct {
	number  int
	running int
	queue   []*simCall
}

type simCall struct {
	began   time.Duration // the request
	pool    *pool
	tried   []*Instance
	server  *simServer
	attempt attempt
	over    bool
}

type simEvent struct {
	at     time.Duration
	serial int // events of one instant keep their order
	do     func()
}

type eventQueue []simEvent

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].serial < q[j].serial
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(e any)   { *q = append(*q, e.(simEvent)) }
func (q *eventQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

func (s *simulation) after(d time.Duration, do func()) {
	s.serial++
	heap.Push(&s.events, simEvent{s.now + d, s.serial, do})
}

func simulate(t testing.TB, seed uint64, named func(random func() uint64) Balancer, e Ejection) *simulation {
	t.Helper()
	e, err := e.withDefaults()
	require.NoError(t, err)
	s := &simulation{length: simLength(), random: rand.New(rand.NewPCG(seed, 0))}
	for i := range simInstances {
		s.servers = append(s.servers, &simServer{number: i})
	}
	s.refresh()
	policies, err := newPolicies(Policy{}, nil)
	require.NoError(t, err)
	b := balancing{policies: policies, balancer: named(s.random.Uint64), slowStart: 10 * time.Second, ejection: e, rand: s.random.Uint64,
		clock: func() time.Duration { return s.now + time.Hour }, log: slog.New(slog.DiscardHandler),
		ejections: func(string, ejectionReason) { s.ejections++ }}
	for range simClients {
		s.pools = append(s.pools, newPool(b, "app", func() *group { return s.group }))
	}
	s.after(0, s.arrive)
	for len(s.events) > 0 {
		event := heap.Pop(&s.events).(simEvent)
		s.now = event.at
		event.do()
	}
	for _, p := range s.pools {
		for _, in := range p.instances {
			require.Zero(t, in.InFlight(), "every attempt has ended")
		}
	}
	return s
}

// refresh is what the directory does: it has a new group, with the load as the heartbeats had it.
func (s *simulation) refresh() {
	var all []*Endpoint
	for i, server := range s.servers {
		busy := simWorkers - s.workers(server) + server.running
		all = append(all, &Endpoint{AppID: "app", InstanceID: fmt.Sprint(i), Host: "10.0.0.1", Port: 1000 + i, Status: StatusHealthy,
			MaxConnections: 100, LoadPercent: min(100, 100*float64(busy)/simWorkers)})
	}
	s.group = newGroup(all)
	if s.now < s.length {
		s.after(simRefresh, s.refresh)
	}
}

func (s *simulation) exponential(mean time.Duration) time.Duration {
	return time.Duration(float64(mean) * s.random.ExpFloat64())
}

func (s *simulation) arrive() {
	if s.now >= s.length {
		return
	}
	s.requests++
	call := &simCall{began: s.now, pool: s.pools[s.random.IntN(simClients)]}
	s.send(call)
	s.after(simDeadline, func() { // the caller gives up
		if !call.over {
			call.over = true
			call.attempt.end(call.pool.clock(), failed)
			s.failures++
		}
	})
	s.after(s.exponential(time.Second/simRate), s.arrive)
}

// send does what Client.sendToOne does.
func (s *simulation) send(call *simCall) {
	p := call.pool
	now := p.clock()
	choice := p.viewOf(s.group, now).everyone.all
	in := p.pick(choice, now, call.tried...)
	if in == nil {
		call.over = true
		s.failures++
		return
	}
	if in.ejected.Load() > int64(now) && !choice.panic {
		s.astray++
	}
	if choice.panic {
		s.panics++
	}
	call.server = s.servers[in.Endpoint().Port-1000]
	if s.now >= simTrouble {
		s.total++
		s.sent[call.server.number]++
	}
	call.attempt = in.begin(now)
	s.after(simNetwork, func() { s.receive(call) })
}

func (s *simulation) receive(call *simCall) {
	server := call.server
	switch {
	case server.number == simReturning && s.now >= simDown && s.now < simBack:
		s.after(simNetwork, func() { s.refused(call) })
	case server.number == simFailing && s.now >= simTrouble:
		s.after(simNetwork, func() { s.answer(call, 500) })
	case server.running < s.workers(server):
		s.serve(server, call)
	case len(server.queue) < simQueue:
		server.queue = append(server.queue, call)
	default:
		s.after(simNetwork, func() { s.answer(call, 503) })
	}
}

func (s *simulation) workers(server *simServer) int {
	if server.number == simOverloaded && s.now >= simTrouble {
		return 1
	}
	return simWorkers
}

func (s *simulation) serve(server *simServer, call *simCall) {
	server.running++
	s.after(s.exponential(s.serviceTime(server)), func() {
		server.running--
		s.after(simNetwork, func() { s.answer(call, 200) })
		for len(server.queue) > 0 && server.running < s.workers(server) {
			next := server.queue[0]
			server.queue = server.queue[1:]
			if !next.over { // nobody waits for the others
				s.serve(server, next)
			}
		}
	})
}

func (s *simulation) serviceTime(server *simServer) time.Duration {
	switch {
	case server.number == simSlow && s.now >= simTrouble:
		return 20 * simService
	case server.number == simReturning && s.now >= simBack && s.now < simBack+10*time.Second:
		cold := float64(simBack+10*time.Second-s.now) / float64(10*time.Second)
		return time.Duration(float64(simService) * (1 + 4*cold))
	default:
		return simService
	}
}

// refused tells the caller that no connection could be made: it tries another instance.
func (s *simulation) refused(call *simCall) {
	if call.over {
		return
	}
	call.attempt.end(call.pool.clock(), failed)
	call.tried = append(call.tried, call.attempt.instance)
	s.send(call)
}

func (s *simulation) answer(call *simCall, status int) {
	if call.over {
		return
	}
	call.over = true
	call.attempt.answered(call.pool.clock(), status)
	call.attempt.end(call.pool.clock(), succeeded)
	if status == 200 {
		s.latencies = append(s.latencies, s.now-call.began)
	} else {
		s.failures++
	}
}

func (s *simulation) success() float64 {
	return 100 * float64(s.requests-s.failures) / float64(s.requests)
}

func (s *simulation) percentile(p float64) time.Duration {
	slices.Sort(s.latencies)
	return s.latencies[int(p*float64(len(s.latencies)-1))]
}

func (s *simulation) share(instance int) float64 {
	return 100 * float64(s.sent[instance]) / float64(s.total)
}

func simulatedBalancers() []struct {
	name  string
	named func(func() uint64) Balancer
} {
	return []struct {
		name  string
		named func(func() uint64) Balancer
	}{
		{"p2c", func(r func() uint64) Balancer { return peakEWMA{r} }},
		{"least-connections", func(r func() uint64) Balancer { return leastConnections{r} }},
		{"weighted", func(r func() uint64) Balancer { return weighted{r} }},
		{"round-robin", func(r func() uint64) Balancer { return roundRobin{r} }},
	}
}

func TestSimulation(t *testing.T) {
	t.Logf("seed %d", *seed)
	var table strings.Builder
	table.WriteString("| balancer | ejection | success | p50 | p99 | to the slow one | to the failing one | to the returning one | to the overloaded one | ejections |\n" +
		"| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	runs := map[string]*simulation{}
	for _, b := range simulatedBalancers() {
		for _, ejection := range []string{"on", "off"} {
			s := simulate(t, *seed, b.named, Ejection{Off: ejection == "off"})
			runs[b.name+" "+ejection] = s
			fmt.Fprintf(&table, "| %s | %s | %.2f %% | %.1f ms | %.0f ms | %.2f %% | %.2f %% | %.2f %% | %.2f %% | %d |\n", b.name, ejection,
				s.success(), ms(s.percentile(0.5)), ms(s.percentile(0.99)), s.share(simSlow), s.share(simFailing),
				s.share(simReturning), s.share(simOverloaded), s.ejections)
			assert.Zero(t, s.astray, "%s: requests to ejected instances outside panic", b.name)
			if ejection == "on" {
				assert.Less(t, s.share(simFailing), 2.0, "%s: the instance that fails at once is found out", b.name)
				assert.Positive(t, s.ejections, b.name)
			}
		}
	}
	t.Log("\n" + table.String())
	assert.GreaterOrEqual(t, runs["p2c on"].success(), 99.9)
	assert.GreaterOrEqual(t, runs["p2c off"].success(), 99.5, "the score alone")
	assert.Less(t, runs["round-robin off"].success(), 96.0)
	assert.Less(t, runs["p2c off"].share(simFailing), 2.0, "the score alone avoids it, too")
	if testing.Short() {
		return
	}
	assert.Less(t, runs["p2c on"].percentile(0.99), runs["round-robin on"].percentile(0.99))
	writeTable(t, table.String())
}

// What holds for one seed holds for others.
func TestSimulationWithOtherSeeds(t *testing.T) {
	if testing.Short() {
		t.Skip("one seed will do")
	}
	for range 2 {
		seed := rand.Uint64()
		s := simulate(t, seed, simulatedBalancers()[0].named, Ejection{})
		t.Logf("seed %d: %.3f %% of %d requests, p99 %.0f ms, %.2f %% to the failing one", seed, s.success(), s.requests,
			ms(s.percentile(0.99)), s.share(simFailing))
		assert.GreaterOrEqual(t, s.success(), 99.9)
		assert.Less(t, s.share(simFailing), 2.0)
		assert.Zero(t, s.astray)
	}
}

// Where most instances fail and the ejected ones are more than panic allows, all get requests.
func TestSimulationOfPanic(t *testing.T) {
	s := simulate(t, *seed, simulatedBalancers()[3].named, Ejection{PanicBelow: 0.9})
	t.Logf("%d of %d requests in panic", s.panics, s.requests)
	assert.Positive(t, s.panics, "two of ten are ejected at times")
	assert.Zero(t, s.astray)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

const (
	simulationPage  = "../../docs/mesh.md"
	simulationBegin = "<!-- simulation: written by go -C pkg/mesh test -run TestSimulation . -update -->\n"
	simulationEnd   = "<!-- simulation end -->\n"
)

// writeTable holds the page against the run, or writes it.
func writeTable(t *testing.T, table string) {
	t.Helper()
	page, err := os.ReadFile(simulationPage)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(page), simulationBegin)
	require.True(t, found)
	_, after, found := strings.Cut(rest, simulationEnd)
	require.True(t, found)
	want := before + simulationBegin + "\n" + table + "\n" + simulationEnd + after
	switch {
	case *update:
		require.NoError(t, os.WriteFile(simulationPage, []byte(want), 0o644))
	case *seed == 1 && runtime.GOARCH == "amd64": // elsewhere floating-point numbers may be rounded in another way
		require.Equal(t, want, string(page), "write it anew: go -C pkg/mesh test -run TestSimulation . -update")
	}
}
