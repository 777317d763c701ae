package sqlstate

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/pkg/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A ledger is an engine whose transactions end when the test lets them, with what the test says.
type ledger struct {
	Gathering[int]

	began chan []int // the asks of a transaction that has begun
	end   chan error
}

func newLedger(t *testing.T) *ledger {
	l := &ledger{began: make(chan []int), end: make(chan error)}
	run := func(ctx context.Context, calls []*Call[int]) error {
		var asks []int
		for _, call := range calls {
			asks = append(asks, call.Ask)
		}
		l.began <- asks
		select {
		case err := <-l.end:
			for _, call := range calls {
				if call.Ask = -call.Ask; call.Ask == -13 {
					call.Err = errRefused
				}
			}
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	l.Gathering = Gathering[int]{
		Alone:    func(ctx context.Context, call *Call[int]) error { return run(ctx, []*Call[int]{call}) },
		Together: run, Lanes: 1, Workers: NewWorkers(),
	}
	t.Cleanup(l.Workers.Close)
	return l
}

var errRefused = errors.New("refused")

type answer struct {
	made int
	err  error
}

// ask asks from a goroutine of its own. It returns when the call is under way, or waits.
func (l *ledger) ask(ctx context.Context, t *testing.T, n int) <-chan answer {
	t.Helper()
	before := l.held()
	answers := make(chan answer, 1)
	go func() {
		made, err := l.Do(ctx, n, 1)
		answers <- answer{made, err}
	}()
	require.Eventually(t, func() bool { return l.held() > before }, 10*time.Second, time.Millisecond)
	return answers
}

func (l *ledger) held() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting) + l.taken
}

// Whoever comes while a transaction is under way shares the next one with the others who did, and learns what became of
// its own call.
func TestGatheringShares(t *testing.T) {
	l := newLedger(t)
	first := l.ask(t.Context(), t, 1)
	require.Equal(t, []int{1}, <-l.began, "a caller alone does not wait")
	second, refused, third := l.ask(t.Context(), t, 2), l.ask(t.Context(), t, 13), l.ask(t.Context(), t, 3)
	l.end <- nil
	require.Equal(t, answer{made: -1}, <-first)
	require.Equal(t, []int{2, 13, 3}, <-l.began)
	l.end <- nil
	require.Equal(t, answer{made: -2}, <-second)
	require.ErrorIs(t, (<-refused).err, errRefused)
	require.Equal(t, answer{made: -3}, <-third)
}

// A transaction that fails for all is tried again for each, so that nobody fails for a neighbour's sake.
func TestGatheringFailsAlone(t *testing.T) {
	l := newLedger(t)
	first := l.ask(t.Context(), t, 1)
	<-l.began
	good, bad, better := l.ask(t.Context(), t, 2), l.ask(t.Context(), t, 3), l.ask(t.Context(), t, 4)
	l.end <- nil
	<-first
	require.Equal(t, []int{2, 3, 4}, <-l.began)
	l.end <- state.ErrInvalid
	for _, err := range []error{nil, state.ErrInvalid, nil} {
		require.Len(t, <-l.began, 1)
		l.end <- err
	}
	require.NoError(t, (<-good).err)
	require.ErrorIs(t, (<-bad).err, state.ErrInvalid)
	require.NoError(t, (<-better).err)
}

// An engine that is away is asked for two callers more, not for each of many, one time-out after the other.
func TestGatheringAway(t *testing.T) {
	l := newLedger(t)
	first := l.ask(t.Context(), t, 1)
	<-l.began
	var rest []<-chan answer
	for n := range 20 {
		rest = append(rest, l.ask(t.Context(), t, n+20))
	}
	l.end <- nil
	<-first
	for range 1 + tries {
		<-l.began
		l.end <- state.ErrUnavailable
	}
	for _, r := range rest {
		require.ErrorIs(t, (<-r).err, state.ErrUnavailable)
	}
}

// After a transaction whose outcome is unknown nobody's call is made again.
func TestGatheringUnknown(t *testing.T) {
	l := newLedger(t)
	first := l.ask(t.Context(), t, 1)
	<-l.began
	second, third := l.ask(t.Context(), t, 2), l.ask(t.Context(), t, 3)
	l.end <- nil
	<-first
	<-l.began
	l.end <- state.ErrOutcomeUnknown
	require.ErrorIs(t, (<-second).err, state.ErrOutcomeUnknown)
	require.ErrorIs(t, (<-third).err, state.ErrOutcomeUnknown)
}

// A caller who cannot wait is told at once what is known of its call, and takes nobody along.
func TestGatheringAbandoned(t *testing.T) {
	l := newLedger(t)
	alone, endAlone := context.WithCancel(t.Context())
	first := l.ask(alone, t, 1)
	<-l.began
	endAlone()
	require.Equal(t, answer{1, context.Canceled}, <-first, "alone, it knows that nothing was changed")

	first = l.ask(t.Context(), t, 1)
	<-l.began
	waiting, endWaiting := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer endWaiting()
	sharing, endSharing := context.WithCancel(t.Context())
	late, gone, stays := l.ask(waiting, t, 2), l.ask(sharing, t, 3), l.ask(t.Context(), t, 4)
	err := (<-late).err
	require.ErrorIs(t, err, state.ErrUnavailable, "it was in no transaction yet")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	l.end <- nil
	<-first
	require.Equal(t, []int{3, 4}, <-l.began)
	endSharing()
	require.ErrorIs(t, (<-gone).err, state.ErrOutcomeUnknown, "it is in one that goes on")
	l.end <- nil
	require.Equal(t, answer{made: -4}, <-stays)
}

// Close waits for what is under way, and refuses who waits.
func TestGatheringClosed(t *testing.T) {
	l := newLedger(t)
	first := l.ask(t.Context(), t, 1)
	<-l.began
	second := l.ask(t.Context(), t, 2)
	var closing sync.WaitGroup
	closing.Go(l.Workers.Close)
	require.Eventually(t, l.Workers.closed, 10*time.Second, time.Millisecond)
	l.end <- nil
	require.NoError(t, (<-first).err)
	require.ErrorIs(t, (<-second).err, state.ErrUnavailable)
	closing.Wait()
}
