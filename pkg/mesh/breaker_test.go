package mesh

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Whatever the order of outcomes: nothing goes through while it is open, never more trials than allowed while it is half-open, and what
// belongs to an earlier time changes nothing.
func TestBreakerLetsThroughWhatItMay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		settings := Breaker{Consecutive: rapid.IntRange(1, 4).Draw(t, "consecutive"), Lasting: -1, OpenFor: time.Second, Trials: rapid.IntRange(1, 3).Draw(t, "trials")}
		hopeless := true
		b := newBreaker(settings, func() bool { return hopeless })
		now := time.Hour
		var flying []permit
		row, period := 0, uint64(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			before := b.state(now)
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0, 1:
				p, until, ok := b.admit(now)
				switch before {
				case BreakerClosed:
					require.True(t, ok)
					require.False(t, p.trial)
				case BreakerOpen:
					require.False(t, ok)
					require.Greater(t, until, now)
					require.LessOrEqual(t, until, now+settings.OpenFor)
				case BreakerHalfOpen:
					require.Equal(t, ok, p.trial)
				}
				if ok {
					flying = append(flying, p)
				}
				trials := 0
				for _, f := range flying {
					if f.trial && f.period == b.period {
						trials++
					}
				}
				require.LessOrEqual(t, trials, settings.Trials)
				require.Equal(t, b.trials, trials, "a trial's place comes back when it ends, once")
			case 2, 3:
				if len(flying) == 0 {
					continue
				}
				i := rapid.IntRange(0, len(flying)-1).Draw(t, "which")
				p, o := flying[i], rapid.SampledFrom([]callOutcome{succeeded, failed, unknownOutcome}).Draw(t, "outcome")
				flying = append(flying[:i], flying[i+1:]...)
				current := !p.trial || p.period == b.period
				b.settle(p, now, o)
				after := b.state(now)
				switch {
				case p.trial && current && o == failed:
					require.Equal(t, BreakerOpen, after)
				case p.trial && current && o == succeeded && settings.Trials == 1:
					require.Equal(t, BreakerClosed, after)
				case before != BreakerClosed && !p.trial, p.trial && !current:
					require.Equal(t, before, after, "a late one says nothing")
				}
				if before == BreakerClosed && !p.trial {
					switch o {
					case succeeded:
						row = 0
					case failed:
						row++
					case unknownOutcome:
					}
					if after == BreakerOpen {
						require.True(t, hopeless)
						require.GreaterOrEqual(t, row, settings.Consecutive)
					} else if hopeless && o == failed {
						require.False(t, row > 0 && row%settings.Consecutive == 0)
					}
				}
			case 4:
				now += time.Duration(rapid.SampledFrom([]int{1, 500, 1000, 5000}).Draw(t, "pause")) * time.Millisecond
			case 5:
				hopeless = rapid.Bool().Draw(t, "hopeless")
			}
			if b.period != period {
				period, row = b.period, int(b.inARow.Load())
			}
		}
	})
}

func TestBreakerIsForWhenAllInstancesFail(t *testing.T) {
	w := newPoolWorld(t, RoundRobin(), Ejection{}, 3)
	call := func(in *Instance, status int) {
		a := in.begin(w.now)
		a.answered(w.now, status)
		a.end(w.now, succeeded)
	}
	for i := range 3 {
		call(w.node(i), 200)
	}
	killed := w.node(0)
	for range 100 {
		call(killed, 503)
	}
	require.Equal(t, BreakerClosed, w.breaker.state(w.now), "the others live")
	require.NotEmpty(t, w.ejected, "this is what ejection is for")
	for range 20 {
		call(w.node(1), 503)
		call(w.node(2), 500)
	}
	require.Equal(t, BreakerClosed, w.breaker.state(w.now), "a 500 is an answer")
	for range 20 {
		call(w.node(1), 503)
		call(w.node(2), 504)
	}
	require.Equal(t, BreakerClosed, w.breaker.state(w.now), "for a moment only")
	w.now += time.Second
	for range 10 {
		call(w.node(1), 503)
		call(w.node(2), 504)
	}
	require.Equal(t, BreakerOpen, w.breaker.state(w.now))
	_, until, ok := w.breaker.admit(w.now)
	assert.False(t, ok)
	assert.LessOrEqual(t, until, w.now+time.Second)

	w.entries = append(w.entries, entry(7))
	w.refresh()
	w.view()
	require.Equal(t, BreakerClosed, w.breaker.state(w.now), "an instance of which nothing bad is known")
	for range 20 {
		call(w.node(1), 503)
	}
	require.Equal(t, BreakerClosed, w.breaker.state(w.now), "it was not called yet")
	w.now += time.Second
	for range 20 {
		call(w.node(7), 503)
	}
	require.Equal(t, BreakerOpen, w.breaker.state(w.now))
	w.now += time.Second
	require.Equal(t, BreakerHalfOpen, w.breaker.state(w.now))
	p, _, ok := w.breaker.admit(w.now)
	require.True(t, ok)
	a := w.node(1).begin(w.now)
	a.permit = p
	_, _, ok = w.breaker.admit(w.now)
	require.False(t, ok, "one trial at a time")
	a.answered(w.now, 200)
	require.Equal(t, BreakerClosed, w.breaker.state(w.now), "the head of a response is enough; a stream may last")
	a.end(w.now, succeeded)
}
