package mesh

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Whatever the order of outcomes: nothing goes through while it is open, never more trials than allowed while it is half-open but in place of
// those that last for longer than it was open, and what belongs to an earlier time changes nothing.
func TestBreakerLetsThroughWhatItMay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		settings := Breaker{Consecutive: rapid.IntRange(1, 4).Draw(t, "consecutive"), Lasting: -1, OpenFor: time.Second, Trials: rapid.IntRange(1, 3).Draw(t, "trials")}
		hopeless := true
		b := newBreaker(settings, func() bool { return hopeless })
		now := time.Hour
		var flying []permit
		row, period := 0, uint64(0)
		var begun []time.Duration // trials of this period
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
					if !ok {
						require.Greater(t, until, now)
						require.LessOrEqual(t, until, now+settings.OpenFor)
						require.NotEmpty(t, begun)
						require.Less(t, now, begun[len(begun)-1]+settings.OpenFor, "one that hangs holds up no other for ever")
					}
				}
				if ok {
					flying = append(flying, p)
				}
				if p.trial {
					begun = append(begun, now)
				}
				trials := 0
				for _, f := range flying {
					if f.trial && f.period == b.period && f.round == b.round {
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
				period, row, begun = b.period, int(b.inARow.Load()), nil
			}
		}
	})
}

// A trial that hangs, such as one whose caller sends its body slowly, keeps its place for as long as the breaker was open. What becomes of it counts all the same.
func TestATrialThatHangsHoldsUpNoOther(t *testing.T) {
	open := func(trials int) (*breaker, time.Duration) {
		b := newBreaker(Breaker{Consecutive: 1, Lasting: -1, OpenFor: time.Second, Trials: trials}, func() bool { return true })
		b.settle(permit{}, time.Hour, failed)
		return b, time.Hour + time.Second
	}
	admitted := func(b *breaker, now time.Duration) permit {
		p, _, ok := b.admit(now)
		require.True(t, ok)
		return p
	}
	refused := func(b *breaker, now, until time.Duration) {
		_, got, ok := b.admit(now)
		require.False(t, ok)
		require.Equal(t, until, got)
	}
	b, now := open(1)
	hangs := admitted(b, now)
	refused(b, now, now+time.Second)
	refused(b, now+time.Second-1, now+time.Second)
	second := admitted(b, now+time.Second)
	refused(b, now+time.Second, now+2*time.Second)
	b.settle(second, now+time.Second, unknownOutcome)
	third := admitted(b, now+time.Second)
	b.settle(hangs, now+time.Second, unknownOutcome)
	refused(b, now+time.Second, now+2*time.Second)
	b.settle(third, now+time.Second, succeeded)
	require.Equal(t, BreakerClosed, b.state(now))

	b, now = open(1)
	hangs = admitted(b, now)
	admitted(b, now+time.Second)
	b.settle(hangs, now+time.Second, succeeded)
	require.Equal(t, BreakerClosed, b.state(now), "late, and a success: where all are slow it would not close otherwise")

	b, now = open(2)
	hangs = admitted(b, now)
	admitted(b, now)
	fails := admitted(b, now+time.Second)
	b.settle(hangs, now+time.Second, unknownOutcome)
	admitted(b, now+time.Second)
	refused(b, now+time.Second, now+2*time.Second)
	b.settle(fails, now+time.Second, failed)
	require.Equal(t, BreakerOpen, b.state(now+time.Second))
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
