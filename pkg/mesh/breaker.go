package mesh

import (
	"cmp"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Breaker says when calls of a target end at once, because all of its instances fail. The zero value is its defaults.
//
// It is of an app-id, and beside [Ejection]: that is of an instance, and only while another one does better. A breaker is
// for what that leaves out, when all fail alike. So it opens only while no usable instance has answered well since its
// last failure. A failure is no connection, one that broke, a time that was up before the response began, and the statuses
// 502, 503 and 504; a handler that answers 500 is there.
//
// Closed, all calls go through. Open, they end with a [CircuitOpenError]. After OpenFor it is half-open: a few calls at a
// time are let through as trials; as many successes as there may be trials close it, one failure opens it again. A trial that
// is not over after OpenFor makes room for another, and its outcome still counts: it may be a body that its caller sends slowly.
// A new instance, or one whose ejection is over, closes the breaker at once.
type Breaker struct {
	// Off: calls always go through.
	Off bool
	// Consecutive is how many failures in a row open it. Default 20.
	Consecutive int
	// Lasting is how long the target must have failed without a success in between, so that chance does not open it where
	// many call and some succeed. Default 1 s; negative: any time.
	Lasting time.Duration
	// OpenFor is how long it stays open. Default 1 s.
	OpenFor time.Duration
	// Trials is how many calls at once are let through while it is half-open. Default 1.
	Trials int
}

func (b Breaker) withDefaults() (Breaker, error) {
	b.Consecutive = cmp.Or(b.Consecutive, 20)
	b.Lasting = cmp.Or(b.Lasting, time.Second)
	b.OpenFor = cmp.Or(b.OpenFor, time.Second)
	b.Trials = cmp.Or(b.Trials, 1)
	if b.Consecutive < 1 || b.OpenFor < 0 || b.Trials < 1 {
		return b, fmt.Errorf("mesh: breaker after %d failures, for %v, with %d trials: choose positive numbers", b.Consecutive, b.OpenFor, b.Trials)
	}
	return b, nil
}

// A BreakerState is one of three.
type BreakerState string

// The states of a breaker.
const (
	BreakerClosed   BreakerState = "closed"
	BreakerOpen     BreakerState = "open"
	BreakerHalfOpen BreakerState = "halfOpen"
)

// A CircuitOpenError is a call that was not made because its target's breaker is open. errors.Is(err, ErrCircuitOpen)
// holds.
type CircuitOpenError struct {
	Target string    // the app-id
	Until  time.Time // when the next trial may be made; at the latest, where one is under way
}

// Error says which target and until when.
func (e *CircuitOpenError) Error() string {
	return fmt.Sprintf("%v: every instance of %q fails; the next trial is at %s", ErrCircuitOpen, e.Target,
		e.Until.UTC().Format("2006-01-02T15:04:05.000Z07:00"))
}

// Is reports whether target is ErrCircuitOpen.
func (e *CircuitOpenError) Is(target error) bool { return target == ErrCircuitOpen }

// Unavailable reports whether a status says that the target could not serve the request at all.
func unavailable(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// A breaker is a Breaker at work. While it is closed, calls read one word and failures count in another.
type breaker struct {
	Breaker
	hopeless func() bool     // no usable instance has answered well since its last failure
	told     func(open bool) // of each change, once

	closed atomic.Bool
	inARow atomic.Int32 // failures since the last success
	since  atomic.Int64 // when the first of them was; 0: there is none
	opened atomic.Uint64

	mu        sync.Mutex
	period    uint64 // grows with every change of state: what belongs to another one does not count
	until     time.Duration
	trials    int // of this round, under way
	round     uint64
	stale     time.Duration // when its trials lose their places to another round
	successes int
}

func newBreaker(b Breaker, hopeless func() bool) *breaker {
	made := &breaker{Breaker: b, hopeless: hopeless, told: func(bool) {}}
	made.closed.Store(true)
	return made
}

// A permit lets one attempt through. The zero value is that of a closed breaker.
type permit struct {
	trial  bool
	period uint64
	round  uint64
}

// admit asks for a permit; until is when to ask again.
func (b *breaker) admit(now time.Duration) (p permit, until time.Duration, ok bool) {
	if b.closed.Load() {
		return permit{}, 0, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed.Load():
		return permit{}, 0, true
	case now < b.until:
		return permit{}, b.until, false
	case b.trials >= b.Trials && now < b.stale:
		return permit{}, b.stale, false
	case b.trials >= b.Trials:
		b.round++
		b.trials = 0
	}
	b.trials++
	b.stale = now + b.OpenFor
	return permit{trial: true, period: b.period, round: b.round}, 0, true
}

// settle takes in how an attempt went.
func (b *breaker) settle(p permit, now time.Duration, o callOutcome) {
	if b.Off {
		return
	}
	if p.trial {
		b.settleTrial(p, now, o)
		return
	}
	switch o {
	case succeeded:
		if b.inARow.Load() != 0 {
			b.inARow.Store(0)
			b.since.Store(0)
		}
	case failed:
		b.since.CompareAndSwap(0, int64(now))
		// To look at all instances takes its time: every failure over the limit would be too often where one instance
		// lives and is not called.
		if n := int(b.inARow.Add(1)); n%b.Consecutive == 0 && b.closed.Load() && b.lasted(now) && b.hopeless() {
			b.open(now)
		}
	case unknownOutcome:
	}
}

// lasted reports whether the target has failed for long enough.
func (b *breaker) lasted(now time.Duration) bool {
	since := time.Duration(b.since.Load())
	return since != 0 && now-since >= b.Lasting
}

func (b *breaker) settleTrial(p permit, now time.Duration, o callOutcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.period != b.period {
		return
	}
	if p.round == b.round {
		b.trials--
	}
	switch o {
	case succeeded:
		if b.successes++; b.successes >= b.Trials {
			b.close()
		}
	case failed:
		b.begin(now)
	case unknownOutcome: // another one may try
	}
}

func (b *breaker) open(now time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed.Load() {
		b.begin(now)
	}
}

// begin begins a time of being open, with the lock held.
func (b *breaker) begin(now time.Duration) {
	b.period++
	b.until, b.trials, b.successes = now+b.OpenFor, 0, 0
	b.opened.Add(1)
	if b.closed.Swap(false) {
		b.told(true)
	}
}

// close is called with the lock held.
func (b *breaker) close() {
	b.period++
	b.trials, b.successes = 0, 0
	b.inARow.Store(0)
	b.since.Store(0)
	if !b.closed.Swap(true) {
		b.told(false)
	}
}

// hope closes the breaker: there is an instance of which nothing bad is known.
func (b *breaker) hope() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.close()
}

func (b *breaker) state(now time.Duration) BreakerState {
	if b.closed.Load() {
		return BreakerClosed
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed.Load():
		return BreakerClosed
	case now < b.until:
		return BreakerOpen
	default:
		return BreakerHalfOpen
	}
}
