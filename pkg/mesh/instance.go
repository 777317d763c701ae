package mesh

import (
	"math"
	"sync/atomic"
	"time"
)

// An Instance is an endpoint as one client sees it: what the registry says of it, and what the client's own calls
// showed. These figures begin when the client first hears of the instance and end when the registry has it no more; a
// newer entry of the same instance goes on with them. It is safe for concurrent use; calls change it without locks.
//
// Methods take the client's clock, as a Picker gets it.
type Instance struct {
	id       string
	address  string // host:port; at another one it is another instance
	pool     *pool
	endpoint atomic.Pointer[Endpoint]

	// What a pick reads, side by side.
	inFlight atomic.Int64
	figures  atomic.Uint64 // see figures
	updated  atomic.Int64  // when they were, by the client's clock
	warming  atomic.Int64  // when the slow start began; 0: it is over

	picked  atomic.Uint64
	inARow  atomic.Int32  // failures since the last success
	onTrial atomic.Bool   // it was ejected, and no call succeeded since
	window  window        // the latest outcomes
	judged  atomic.Int64  // when they were last looked at for an ejection
	ejected atomic.Int64  // until when; 0: not. Changed with the pool's lock held
	again   ejectionCount // guarded by the pool's lock
	usable  bool          // guarded by the pool's lock: whether the last set had it
}

// Endpoint is what the registry says, as known now. It must not be changed.
func (in *Instance) Endpoint() *Endpoint { return in.endpoint.Load() }

// InFlight is how many requests of this client the instance has, from the pick to the end of the response's body.
func (in *Instance) InFlight() int { return int(in.inFlight.Load()) }

// Latency is the peak-sensitive moving average of the time until the head of a response: it jumps up to a higher sample,
// and sinks towards lower ones, or towards 0 without any, by a factor of e in 10 s. Known is false before the first.
func (in *Instance) Latency(now time.Duration) (latency time.Duration, known bool) {
	f := in.figuresAt(now)
	return time.Duration(f.latency), f.latency > 0
}

// FailureShare is the share of the latest calls that failed, from 0 to 1: each call counts an eighth, those before it
// seven eighths, and without calls it sinks by a factor of e in 10 s.
func (in *Instance) FailureShare(now time.Duration) float64 {
	return float64(in.figuresAt(now).failing)
}

// leastShare is what an instance gets at the beginning of its slow start.
const leastShare = 0.1

// Share is the part of its usual share of requests that an instance should get: 1, or less while it starts slowly, from
// 0.1 on. An instance does so when it is new among others, when it is usable again, and when its ejection is over.
func (in *Instance) Share(now time.Duration) float64 {
	began := in.warming.Load()
	if began == 0 {
		return 1
	}
	share := float64(int64(now)-began) / float64(in.pool.slowStart)
	if share >= 1 {
		in.warming.CompareAndSwap(began, 0)
		return 1
	}
	return max(leastShare, share)
}

func (in *Instance) startsSlowly() bool { return in.warming.Load() != 0 }

// admits decides by chance whether an instance takes a request now that it was drawn for.
func (in *Instance) admits(now time.Duration, random func() uint64) bool {
	if !in.startsSlowly() {
		return true
	}
	return float64(random()>>11)/(1<<53) < in.Share(now)
}

func (in *Instance) startSlowly(now time.Duration) {
	if in.pool.slowStart > 0 {
		in.warming.Store(int64(now))
	}
}

// figures are what is remembered of an instance's calls, in one word so that they change together.
type figures struct {
	latency float32 // nanoseconds; 0: not known. A float32 is right to a part in 16 million
	failing float32 // 0 to mostFailing
}

const (
	memory      = 10 * time.Second // in which figures sink by a factor of e
	failureStep = 1.0 / 8          // what one call counts
	mostFailing = 0.99             // so that a score stays finite
)

func (f figures) pack() uint64 {
	return uint64(math.Float32bits(f.latency))<<32 | uint64(math.Float32bits(f.failing))
}

func unpack(word uint64) figures {
	return figures{math.Float32frombits(uint32(word >> 32)), math.Float32frombits(uint32(word))}
}

func (f figures) after(d time.Duration) figures {
	remains := left(d)
	if f.latency > 0 {
		f.latency = max(1, f.latency*remains)
	}
	f.failing *= remains
	return f
}

// left is what is left of a figure after a time: e to the power of -d/memory, to one part in a hundred within the first
// memory. It is worked out twice a pick, where math.Exp would take a third of the time.
func left(d time.Duration) float32 {
	x := 1 - float32(d)/(64*float32(memory))
	if x <= 0 {
		return 0
	}
	x *= x // 2
	x *= x // 4
	x *= x // 8
	x *= x // 16
	x *= x // 32
	return min(1, x*x)
}

func (in *Instance) figuresAt(now time.Duration) figures {
	return unpack(in.figures.Load()).after(now - time.Duration(in.updated.Load()))
}

// A sample is what one call showed.
type sample struct {
	latency time.Duration // 0: nothing
	atLeast bool          // the call ended early: it would have taken as long or longer
	outcome callOutcome
}

// A callOutcome is what a call says of its instance.
type callOutcome int

const (
	unknownOutcome callOutcome = iota // nothing: the caller went away
	succeeded
	failed
)

func (f figures) with(s sample, since time.Duration) figures {
	kept := left(since)
	latency := float32(s.latency)
	switch {
	case latency == 0 || s.atLeast && latency <= f.latency:
	case s.atLeast && f.latency == 0: // one that fails at once is not fast
	case latency >= f.latency:
		f.latency = latency
	default:
		f.latency = f.latency*kept + latency*(1-kept)
	}
	switch s.outcome {
	case succeeded:
		f.failing *= kept * (1 - failureStep)
	case failed:
		f.failing = min(mostFailing, f.failing*kept*(1-failureStep)+failureStep)
	case unknownOutcome:
	}
	return f
}

// learn takes a sample in.
func (in *Instance) learn(now time.Duration, s sample) {
	before := in.updated.Load()
	if int64(now) > before && !in.updated.CompareAndSwap(before, int64(now)) {
		before = int64(now) // another call counts the time that passed
	}
	since := max(0, now-time.Duration(before))
	for {
		word := in.figures.Load()
		if in.figures.CompareAndSwap(word, unpack(word).with(s, since).pack()) {
			return
		}
	}
}

// forgive forgets which calls failed.
func (in *Instance) forgive() {
	for {
		word := in.figures.Load()
		f := unpack(word)
		f.failing = 0
		if in.figures.CompareAndSwap(word, f.pack()) {
			return
		}
	}
}

// An attempt is one request to one instance, from its pick to the end of the response. Its methods are called from one
// goroutine at a time: answered at most once, then end once, whatever happens.
type attempt struct {
	instance *Instance
	began    time.Duration
	headed   bool // a response began
	settled  bool // the outcome is known and counted
	permit   permit
}

// begin counts a picked instance's next request.
func (in *Instance) begin(now time.Duration) attempt {
	in.inFlight.Add(1)
	in.picked.Add(1)
	return attempt{instance: in, began: now}
}

// answered notes that a response began. One that is an error of the server is a failure at once; whether another is a
// success shows at its end.
func (a *attempt) answered(now time.Duration, status int) {
	a.headed = true
	a.instance.pool.responded(now - a.began)
	if isFailure(status) {
		a.settled = true
		a.instance.learn(now, sample{latency: now - a.began, atLeast: true, outcome: failed})
		a.instance.record(now, true)
	}
	if unavailable(status) {
		a.instance.pool.breaker.settle(a.permit, now, failed)
	} else {
		a.instance.pool.breaker.settle(a.permit, now, succeeded)
	}
	if a.settled {
		return
	}
	a.instance.learn(now, sample{latency: max(1, now-a.began), outcome: succeeded})
}

// isFailure tells whether a status speaks against the instance: a 5xx does, but not being able to do a thing at all.
func isFailure(status int) bool { return status >= 500 && status != 501 }

// end is called when the response is over, or when there will be none.
func (a *attempt) end(now time.Duration, o callOutcome) {
	a.instance.inFlight.Add(-1)
	if a.settled {
		return
	}
	a.settled = true
	switch {
	case !a.headed:
		a.instance.learn(now, sample{latency: now - a.began, atLeast: true, outcome: o})
	case o == failed:
		a.instance.learn(now, sample{outcome: failed})
	}
	if o != unknownOutcome {
		a.instance.record(now, o == failed)
	} else if !a.headed {
		a.instance.pool.responded(now - a.began) // it would have taken longer
	}
	if !a.headed {
		a.instance.pool.breaker.settle(a.permit, now, o)
	}
}
