package mesh

import (
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A poolWorld is a pool whose clock and directory the test moves.
type poolWorld struct {
	*pool
	now     time.Duration
	entries []Endpoint
	group   *group
	ejected []ejectionReason
}

func newPoolWorld(t require.TestingT, b Balancer, e Ejection, n int) *poolWorld {
	w := &poolWorld{now: time.Hour}
	e, err := e.withDefaults()
	require.NoError(t, err)
	policies, err := newPolicies(Policy{}, nil)
	require.NoError(t, err)
	w.pool = newPool(balancing{policies: policies, balancer: b, slowStart: 10 * time.Second, ejection: e, rand: rand.Uint64, log: slog.New(slog.DiscardHandler),
		clock:     func() time.Duration { return w.now },
		ejections: func(_ string, r ejectionReason) { w.ejected = append(w.ejected, r) }}, "app", func() *group { return w.group })
	for i := range n {
		w.entries = append(w.entries, entry(i))
	}
	w.refresh()
	w.view()
	return w
}

func entry(i int) Endpoint {
	return Endpoint{AppID: "app", InstanceID: fmt.Sprintf("node-%d", i), Host: "10.0.0.1", Port: 1000 + i, Status: StatusHealthy}
}

// refresh is a new snapshot of the same entries.
func (w *poolWorld) refresh() {
	var all []*Endpoint
	for _, e := range w.entries {
		all = append(all, &e)
	}
	w.group = newGroup(all)
}

func (w *poolWorld) view() *view { return w.viewOf(w.group, w.now) }

func (w *poolWorld) one() *Instance { return w.pick(w.view().everyone.all, w.now) }

func (w *poolWorld) node(i int) *Instance {
	w.view()
	return w.instances[fmt.Sprintf("node-%d", i)]
}

func (w *poolWorld) call(in *Instance, took time.Duration, o callOutcome) {
	a := in.begin(w.now)
	w.now += took
	if o == succeeded {
		a.answered(w.now, 200)
	}
	a.end(w.now, o)
}

// shares picks n times and returns how often each instance was picked, without any call being made.
func (w *poolWorld) shares(n int) map[string]float64 {
	picks := map[string]float64{}
	for range n {
		picks[w.one().id] += 1 / float64(n)
	}
	return picks
}

func TestAnInstanceThatFailsIsEjectedAndComesBackOnTrial(t *testing.T) {
	w := newPoolWorld(t, RoundRobin(), Ejection{}, 4)
	bad := w.node(1)
	for range 4 {
		w.call(bad, time.Millisecond, failed)
	}
	w.call(bad, time.Millisecond, succeeded)
	for range 4 {
		w.call(bad, time.Millisecond, failed)
		w.call(bad, time.Millisecond, unknownOutcome) // a caller that goes away says nothing
	}
	require.Empty(t, w.ejected, "never five in a row")
	w.call(bad, time.Millisecond, failed)
	require.Equal(t, []ejectionReason{ejectedConsecutive}, w.ejected)
	assert.NotContains(t, w.shares(1000), bad.id)
	w.now += 9900 * time.Millisecond
	assert.NotContains(t, w.shares(1000), bad.id)
	w.refresh()
	assert.NotContains(t, w.shares(1000), bad.id, "a new snapshot does not end it")

	w.now += 200 * time.Millisecond
	share := w.shares(20000)[bad.id]
	assert.InDelta(t, 0.1/4, share, 0.02, "it is back, slowly")
	w.call(bad, time.Millisecond, failed)
	require.Equal(t, []ejectionReason{ejectedConsecutive, ejectedAgain}, w.ejected, "its first call decides")
	w.now += 19 * time.Second
	assert.NotContains(t, w.shares(1000), bad.id, "twice as long")
	w.now += 2 * time.Second
	assert.Contains(t, w.shares(1000), bad.id)
	w.call(bad, time.Millisecond, succeeded)
	w.call(bad, time.Millisecond, failed)
	require.Len(t, w.ejected, 2, "the trial is over")
	w.now += time.Minute
	assert.InDelta(t, 0.25, w.shares(2000)[bad.id], 0.01, "its whole share")
	for range 4 { // and the one before
		w.call(bad, time.Millisecond, failed)
	}
	state := w.state(w.view(), w.now)
	assert.Equal(t, 10*time.Second, state.Instances[1].LastEjection, "it was well for long enough: from the beginning")
	assert.Equal(t, 10*time.Second, state.Instances[1].EjectedFor)
	assert.Equal(t, "ejected", state.Instances[1].State())
}

func TestAnInstanceThatOftenFailsIsEjected(t *testing.T) {
	w := newPoolWorld(t, PeakEWMA(), Ejection{}, 3)
	bad := w.node(0)
	for range 9 {
		w.call(bad, time.Millisecond, failed)
		w.call(bad, time.Millisecond, succeeded)
	}
	w.call(bad, time.Millisecond, succeeded)
	require.Empty(t, w.ejected, "19 calls are too few")
	w.call(bad, time.Millisecond, failed)
	require.Equal(t, []ejectionReason{ejectedShare}, w.ejected, "10 of 20")

	slowly := newPoolWorld(t, PeakEWMA(), Ejection{}, 3)
	for range 100 {
		slowly.call(slowly.node(0), 600*time.Millisecond, failed)
		slowly.call(slowly.node(0), 600*time.Millisecond, succeeded)
	}
	require.Empty(t, slowly.ejected, "never 20 calls in ten seconds")
}

func TestWhereAllFailNobodyIsAnOutlier(t *testing.T) {
	w := newPoolWorld(t, RoundRobin(), Ejection{}, 5)
	for i := range 5 { // each is known to fail, nobody often enough
		for range 4 {
			w.call(w.node(i), time.Millisecond, failed)
		}
	}
	for i := range 5 {
		for range 50 {
			w.call(w.node(i), time.Millisecond, failed)
		}
	}
	assert.Empty(t, w.ejected)
	assert.Len(t, w.shares(1000), 5)
	// One that was never called may be better.
	w.entries = append(w.entries, entry(5))
	w.refresh()
	w.call(w.node(0), 10*time.Second, succeeded)
	for range 5 {
		w.call(w.node(0), 100*time.Millisecond, failed)
	}
	assert.Len(t, w.ejected, 1)
}

func TestPanicUsesEveryInstance(t *testing.T) {
	w := newPoolWorld(t, RoundRobin(), Ejection{}, 10)
	eject := func(i int) {
		for range 5 {
			w.call(w.node(i), time.Microsecond, failed)
		}
	}
	for i := range 7 {
		eject(i)
		assert.Len(t, w.shares(1000), 9-i)
		assert.False(t, w.view().panics())
	}
	eject(7)
	assert.True(t, w.view().panics(), "two of ten are below 0.3")
	assert.Len(t, w.shares(1000), 10)
	assert.True(t, w.state(w.view(), w.now).Panic)
	w.now += 11 * time.Second
	assert.False(t, w.view().panics(), "the ejections are over")

	alone := newPoolWorld(t, RoundRobin(), Ejection{PanicBelow: -1}, 2)
	for range 5 {
		alone.call(alone.node(0), time.Microsecond, failed)
	}
	assert.Equal(t, map[string]float64{"node-1": 1}, rounded(alone.shares(1000)))
	for range 50 {
		alone.call(alone.node(1), time.Microsecond, failed)
	}
	assert.Len(t, alone.ejected, 1, "the last one is kept: there is none that fails less")
	off := newPoolWorld(t, RoundRobin(), Ejection{Off: true}, 2)
	for range 50 {
		off.call(off.node(0), time.Microsecond, failed)
	}
	assert.Empty(t, off.ejected)
}

func rounded(shares map[string]float64) map[string]float64 {
	for id := range shares {
		shares[id] = math.Round(shares[id]*100) / 100
	}
	return shares
}

func TestFiguresAreKeptOverSnapshotsAndDroppedWithTheInstance(t *testing.T) {
	w := newPoolWorld(t, PeakEWMA(), Ejection{}, 3)
	in := w.node(1)
	w.call(in, 20*time.Millisecond, succeeded)
	under := in.begin(w.now)
	w.entries[1].LoadPercent = 80
	w.refresh()
	assert.Same(t, in, w.node(1))
	assert.InDelta(t, 80, in.Endpoint().LoadPercent, 1e-9, "what the registry says is new")
	latency, known := in.Latency(w.now)
	assert.True(t, known)
	assert.InDelta(t, float64(20*time.Millisecond), float64(latency), float64(time.Microsecond))
	assert.Equal(t, 1, in.InFlight())

	w.entries = slices.Delete(w.entries, 1, 2)
	w.refresh()
	assert.NotContains(t, w.shares(1000), "node-1")
	assert.NotContains(t, w.instances, "node-1")
	assert.Equal(t, uint64(2), w.state(w.view(), w.now).Picks, "its picks stay counted")
	w.entries = append(w.entries, entry(1))
	w.refresh()
	assert.NotSame(t, in, w.node(1), "one that comes back is another")
	assert.Zero(t, w.node(1).InFlight())
	under.end(w.now, succeeded)
	assert.Zero(t, w.node(1).InFlight(), "what the former one had under way is not its")

	known1 := w.node(1)
	w.entries[2].Port = 4000
	w.refresh()
	assert.NotSame(t, known1, w.node(1), "at another address, it is another process")
}

func TestSlowStart(t *testing.T) {
	balancers := map[string]Balancer{"p2c": PeakEWMA(), "round-robin": RoundRobin(), "weighted": Weighted()}
	for name, b := range balancers {
		w := newPoolWorld(t, b, Ejection{}, 9)
		assert.Len(t, w.shares(2000), 9, "%s: where all are new, none starts slowly", name)
		w.entries = append(w.entries, entry(9))
		w.refresh()
		began := time.Duration(w.node(9).warming.Load())
		for _, part := range []float64{0.05, 0.3, 0.6, 1} {
			w.now = began + time.Duration(part*float64(10*time.Second))
			assert.InDelta(t, max(0.1, part)/10, w.shares(40000)["node-9"], 0.02, "%s after %v of it", name, part)
		}
	}
	// By connections there is no chance in it: it counts as if it had ten times as many.
	w := newPoolWorld(t, LeastConnections(), Ejection{}, 2)
	w.entries = append(w.entries, entry(2))
	w.refresh()
	w.view()
	var held []attempt
	for range 30 {
		in := w.one()
		held = append(held, in.begin(w.now))
	}
	assert.LessOrEqual(t, w.node(2).InFlight(), 3)
	assert.GreaterOrEqual(t, w.node(2).InFlight(), 1)
	for _, a := range held {
		a.end(w.now, succeeded)
	}
	// One that was degraded and is healthy again starts slowly too.
	w.entries[0].Status = StatusDegraded
	w.refresh()
	w.view()
	w.entries[0].Status = StatusHealthy
	w.refresh()
	assert.True(t, w.node(0).startsSlowly())
}

func TestZonesSpillOver(t *testing.T) {
	w := newPoolWorld(t, RoundRobin(), Ejection{PanicBelow: -1}, 14)
	w.zone = "a"
	for i := range w.entries {
		w.entries[i].Zone = "b"
		if i < 7 {
			w.entries[i].Zone = "a"
		}
	}
	w.refresh()
	near := func() (share float64) {
		for id, s := range w.shares(20000) {
			if w.instances[id].Endpoint().Zone == "a" {
				share += s
			}
		}
		return share
	}
	assert.InDelta(t, 1, near(), 1e-9, "everything stays in the zone")
	leave := func(i int, s Status) {
		w.entries[i].Status = s
		w.refresh()
	}
	leave(0, StatusDegraded)
	leave(1, StatusUnavailable)
	assert.InDelta(t, 1, near(), 1e-9, "five of seven suffice")
	for range 5 {
		w.call(w.node(2), time.Microsecond, failed)
	}
	require.Len(t, w.ejected, 1)
	assert.InDelta(t, 1.4*4/7, near(), 0.02, "an ejected one is missing too")
	leave(3, StatusDegraded)
	leave(4, StatusDegraded)
	assert.InDelta(t, 1.4*2/7, near(), 0.02)
	for i := range 7 {
		leave(i, StatusUnavailable)
	}
	assert.Zero(t, near(), "nobody is left there")
	for i := range 7 {
		leave(i, StatusShuttingDown)
	}
	leave(0, StatusHealthy)
	w.now += time.Minute
	assert.InDelta(t, 1, near(), 1e-9, "those that leave are not missed")
	w.zone = "nowhere"
	w.refresh()
	assert.Len(t, w.shares(1000), 8, "a zone of nobody's: all are alike")
}

func TestPickAvoidsWhatWasTried(t *testing.T) {
	for _, name := range BalancerNames() {
		b, err := BalancerNamed(name)
		require.NoError(t, err)
		w := newPoolWorld(t, b, Ejection{}, 5)
		for range 100 {
			var tried []*Instance
			for range 5 {
				in := w.pick(w.view().everyone.all, w.now, tried...)
				require.NotNil(t, in)
				require.NotContains(t, tried, in)
				tried = append(tried, in)
			}
			require.Nil(t, w.pick(w.view().everyone.all, w.now, tried...))
		}
	}
}

func TestRoundRobinTakesEachInTurn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "instances")
		w := newPoolWorld(t, RoundRobin(), Ejection{}, n)
		for range rapid.IntRange(0, 30).Draw(t, "before") {
			w.one()
		}
		rounds := rapid.IntRange(1, 4).Draw(t, "rounds")
		picks := map[string]int{}
		for range rounds * n {
			picks[w.one().id]++
		}
		for id, k := range picks {
			if k != rounds {
				t.Fatalf("%s of %d was picked %d times in %d rounds", id, n, k, rounds)
			}
		}
	})
}

func TestWeightedIsInProportionAndSmooth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "instances")
		w := newPoolWorld(t, Weighted(), Ejection{}, n)
		weights := map[string]float64{}
		sum, largest := 0.0, 0.0
		for i := range w.entries {
			e := &w.entries[i]
			e.MaxConnections = rapid.IntRange(1, 1000).Draw(t, "capacity")
			e.LoadPercent = rapid.Float64Range(0, 100).Draw(t, "load")
			weights[e.InstanceID] = float64(e.MaxConnections) * max(0.1, 1-e.LoadPercent/100)
			sum += weights[e.InstanceID]
			largest = max(largest, weights[e.InstanceID])
		}
		w.refresh()
		turns := w.view().everyone.all.near.(*cycle).turns
		last, count := map[string]int{}, map[string]int{}
		for _, in := range turns {
			count[in.id]++
		}
		for i := range 3 * len(turns) {
			id := w.one().id
			if before, seen := last[id]; seen {
				even := float64(len(turns)) / float64(count[id])
				if gap := float64(i - before); gap > even+float64(n)+1 {
					t.Fatalf("%s waits for %v turns, %.1f would be even", id, gap, even)
				}
			}
			last[id] = i
		}
		for id, k := range count {
			if exact := turnsOfLargest * weights[id] / largest; math.Abs(float64(k)-exact) > 1 {
				t.Fatalf("%s has %d turns, its weight is worth %.2f", id, k, exact)
			}
		}
	})
}

func TestLeastConnectionsTakesOneOfTheFewest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newPoolWorld(t, LeastConnections(), Ejection{}, rapid.IntRange(1, 20).Draw(t, "instances"))
		least := int64(math.MaxInt64)
		for i := range w.entries {
			busy := rapid.Int64Range(0, 5).Draw(t, "in flight")
			w.node(i).inFlight.Store(busy)
			least = min(least, busy)
		}
		for range 20 {
			if in := w.one(); in.inFlight.Load() != least {
				t.Fatalf("%s has %d in flight, another one %d", in.id, in.inFlight.Load(), least)
			}
		}
	})
}

func TestPeakEWMANeverTakesTheWorst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newPoolWorld(t, PeakEWMA(), Ejection{Off: true}, rapid.IntRange(2, 10).Draw(t, "instances"))
		worst, most, ties := "", float32(0), 0
		for i := range w.entries {
			in := w.node(i)
			f := figures{latency: rapid.Float32Range(1e3, 1e9).Draw(t, "latency"), failing: rapid.Float32Range(0, 0.4).Draw(t, "failing")}
			in.figures.Store(f.pack())
			in.inFlight.Store(rapid.Int64Range(0, 50).Draw(t, "in flight"))
			switch s := score(f, in.InFlight()); {
			case s > most:
				worst, most, ties = in.id, s, 0
			case s == most:
				ties++
			}
		}
		picks := w.shares(200)
		if _, taken := picks[worst]; taken && ties == 0 {
			t.Fatalf("%s has the highest score of all and was taken", worst)
		}
	})
}

// The two are drawn alike: without figures every instance gets its share.
func TestPeakEWMADrawsFairly(t *testing.T) {
	for _, n := range []int{2, 3, 7, 100} {
		w := newPoolWorld(t, PeakEWMA(), Ejection{}, n)
		for id, share := range w.shares(100000) {
			assert.InDelta(t, 1/float64(n), share, 0.01, id)
		}
	}
}

func TestPeakEWMAPrefersTheFastAndForgets(t *testing.T) {
	w := newPoolWorld(t, PeakEWMA(), Ejection{}, 2)
	fast, slow := w.node(0), w.node(1)
	w.call(fast, 10*time.Millisecond, succeeded)
	w.call(slow, 50*time.Millisecond, succeeded)
	w.call(slow, 10*time.Millisecond, succeeded)
	latency, _ := slow.Latency(w.now)
	assert.InDelta(t, 50, ms(latency), 1, "a peak is remembered")
	assert.Equal(t, map[string]float64{fast.id: 1}, rounded(w.shares(100)))
	var held []attempt
	for range 5 {
		held = append(held, fast.begin(w.now))
	}
	assert.Equal(t, map[string]float64{slow.id: 1}, rounded(w.shares(100)), "six times ten is more than fifty")
	for _, a := range held {
		a.end(w.now, unknownOutcome)
	}
	w.now += 20 * time.Second
	latency, _ = slow.Latency(w.now)
	assert.InDelta(t, 50/math.E/math.E, ms(latency), 1, "without samples it sinks")

	// What fails at once is not fast, and one that failed once is not lost.
	w = newPoolWorld(t, PeakEWMA(), Ejection{Off: true}, 2)
	ok, bad := w.node(0), w.node(1)
	w.call(ok, 10*time.Millisecond, succeeded)
	w.call(bad, 10*time.Millisecond, succeeded)
	w.call(bad, time.Microsecond, failed)
	assert.Equal(t, map[string]float64{ok.id: 1}, rounded(w.shares(100)))
	assert.InDelta(t, 1.0/8, bad.FailureShare(w.now), 0.001)
	for range 100 {
		w.call(bad, time.Microsecond, failed)
	}
	assert.InDelta(t, mostFailing, bad.FailureShare(w.now), 0.001)
	w.now += 30 * time.Second
	assert.Less(t, bad.FailureShare(w.now), 0.06, "it is tried again")
}

func TestWindowCountsExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w window
		type call struct {
			at     time.Duration
			failed bool
		}
		var all []call
		now := time.Hour
		for range rapid.IntRange(0, 200).Draw(t, "calls") {
			now += time.Duration(rapid.IntRange(0, 1000).Draw(t, "pause")) * time.Millisecond
			c := call{now, rapid.Bool().Draw(t, "failed")}
			w.add(c.at, c.failed)
			all = append(all, c)
		}
		after := now - time.Duration(rapid.IntRange(0, 60000).Draw(t, "window"))*time.Millisecond
		calls, failures := 0, 0
		for _, c := range all[max(0, len(all)-windowCalls):] {
			if c.at > after {
				calls++
				if c.failed {
					failures++
				}
			}
		}
		gotCalls, gotFailures := w.count(after)
		if gotCalls != calls || gotFailures != failures {
			t.Fatalf("counted %d of %d, there are %d of %d", gotFailures, gotCalls, failures, calls)
		}
	})
}

// Figures stay what they are said to be, whatever calls show.
func FuzzFigures(f *testing.F) {
	f.Add(int64(time.Millisecond), int64(time.Second), true, uint8(1))
	f.Add(int64(0), int64(0), false, uint8(2))
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64), false, uint8(0))
	f.Fuzz(func(t *testing.T, latency, since int64, atLeast bool, outcome uint8) {
		s := sample{latency: time.Duration(max(0, latency)), atLeast: atLeast, outcome: callOutcome(outcome % 3)}
		since = max(0, since)
		was := figures{latency: 1e6, failing: 0.5}
		for _, before := range []figures{{}, was, {failing: mostFailing}} {
			got := unpack(before.with(s, time.Duration(since)).pack())
			if !(got.failing >= 0 && got.failing <= mostFailing) || !(got.latency >= 0) || math.IsInf(float64(got.latency), 0) {
				t.Fatalf("%+v after %+v and %v is %+v", before, s, since, got)
			}
			if got.latency > max(before.latency, float32(s.latency)) {
				t.Fatalf("%+v after %+v is %+v, above both", before, s, got)
			}
			if s.atLeast && got.latency < before.latency {
				t.Fatalf("%+v after %+v is %+v: a call that was cut off is no proof of speed", before, s, got)
			}
			later := got.after(time.Duration(since))
			if !(later.latency <= got.latency && later.failing <= got.failing && later.failing >= 0) || (got.latency > 0) != (later.latency > 0) {
				t.Fatalf("%+v is %+v %v later", got, later, since)
			}
		}
	})
}

func TestEjectionSettings(t *testing.T) {
	for _, e := range []Ejection{{Share: -1}, {MinCalls: 65}, {MinCalls: -1}, {Window: -1}, {Time: -1}, {Time: 2, MaxTime: 1},
		{PanicBelow: 1.5}, {Share: math.NaN()}, {PanicBelow: math.NaN()}} {
		_, err := e.withDefaults()
		require.Error(t, err, "%+v", e)
	}
	e, err := Ejection{}.withDefaults()
	require.NoError(t, err)
	assert.Equal(t, Ejection{Consecutive: 5, Share: 0.5, MinCalls: 20, Window: 10 * time.Second, Time: 10 * time.Second,
		MaxTime: 5 * time.Minute, PanicBelow: 0.3}, e)
	_, err = BalancerNamed("fair")
	require.ErrorContains(t, err, `"fair" is not known: choose p2c, least-connections, weighted, round-robin`)
}

// Picks, calls, ejections and new snapshots all at once: whatever happens, every call is counted off again.
func TestPoolConcurrently(t *testing.T) {
	for _, name := range BalancerNames() {
		b, err := BalancerNamed(name)
		require.NoError(t, err)
		var mu sync.Mutex
		w := newPoolWorld(t, b, Ejection{Time: time.Millisecond}, 8)
		begin := time.Now()
		w.clock = func() time.Duration { return time.Hour + time.Since(begin) }
		w.ejections = nil
		w.current = func() *group {
			mu.Lock()
			defer mu.Unlock()
			return w.group
		}
		var callers sync.WaitGroup
		for caller := range 8 {
			callers.Go(func() {
				random := rand.New(rand.NewPCG(1, uint64(caller)))
				for range 2000 {
					now := w.clock()
					in := w.pick(w.viewOf(w.current(), now).everyone.all, now)
					a := in.begin(now)
					switch random.IntN(4) {
					case 0:
						a.end(w.clock(), failed)
					case 1:
						a.end(w.clock(), unknownOutcome)
					case 2:
						a.answered(w.clock(), 503)
						a.end(w.clock(), succeeded)
					default:
						a.answered(w.clock(), 200)
						a.end(w.clock(), succeeded)
					}
				}
			})
		}
		callers.Go(func() {
			for range 200 {
				mu.Lock()
				w.refresh()
				mu.Unlock()
				_ = w.state(w.viewOf(w.current(), w.clock()), w.clock())
			}
		})
		callers.Wait()
		picks := w.state(w.viewOf(w.current(), w.clock()), w.clock()).Picks
		assert.Equal(t, uint64(16000), picks, name)
		for _, in := range w.instances {
			assert.Zero(t, in.InFlight(), name)
		}
	}
}
