package inbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/services/inbox"
)

type counted struct {
	EventID   string    `json:"eventId"`
	Timestamp time.Time `json:"timestamp"`
	N         int       `json:"n"`
}

func (*counted) EventName() string { return "CountedEvent" }

func (e *counted) Stamp(id string, at time.Time) (string, time.Time) {
	if e.EventID == "" {
		e.EventID, e.Timestamp = id, at
	}
	return e.EventID, e.Timestamp
}

func openBus(t *testing.T) *bus.Bus {
	t.Helper()
	d := memorybus.New(memorybus.Config{})
	b, err := bus.New(d, bus.Config{})
	require.NoError(t, err)
	life, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = b.Run(life) })
	t.Cleanup(func() { end(); running.Wait(); require.NoError(t, d.Close(context.Background())) })
	return b
}

func openInbox(t *testing.T, name string) state.Inbox {
	t.Helper()
	box, err := memorystate.New().OpenInbox(t.Context(), state.InboxConfig{Name: name})
	require.NoError(t, err)
	return box
}

// away is an inbox whose database is away for some calls.
type away struct {
	state.Inbox
	mu    sync.Mutex
	calls int
}

func (a *away) Handle(ctx context.Context, id string, fn func(tx *sql.Tx) error) (bool, error) {
	a.mu.Lock()
	a.calls--
	left := a.calls
	a.mu.Unlock()
	switch {
	case left > 0 && left%2 == 0:
		return false, fmt.Errorf("%w: it is away", state.ErrUnavailable)
	case left > 0:
		_, err := a.Inbox.Handle(ctx, id, fn)
		return false, errors.Join(state.ErrOutcomeUnknown, err) // it was done, and the answer lost
	default:
		return a.Inbox.Handle(ctx, id, fn)
	}
}

// An event that is published twice, fails at first, and comes while the database is away, has its effect once.
func TestOnce(t *testing.T) {
	b := openBus(t)
	box := &away{Inbox: openInbox(t, "counting"), calls: 4}
	var mu sync.Mutex
	effects, calls := map[int]int{}, map[int]int{}
	settled := make(chan int, 100)
	_, err := bus.Subscribe(t.Context(), b, "counted", func(ctx context.Context, e *counted) error {
		err := inbox.Once(box, func(_ context.Context, tx *sql.Tx, e *counted) error {
			mu.Lock()
			defer mu.Unlock()
			if calls[e.N]++; e.N == 2 && calls[e.N] == 1 {
				return errors.New("it fails at first")
			}
			require.Nil(t, tx)
			effects[e.N]++
			return nil
		})(ctx, e)
		if err == nil {
			settled <- e.N
		}
		return err
	}, bus.SubscriptionOptions{PrefetchCount: 1})
	require.NoError(t, err)
	for n := range 4 {
		for range 2 {
			_, err := b.Publish(t.Context(), "counted", &counted{EventID: fmt.Sprint("id-", n), Timestamp: time.Now(), N: n})
			require.NoError(t, err)
		}
	}
	for range 8 {
		select {
		case <-settled:
		case <-time.After(20 * time.Second):
			require.FailNow(t, "an event is not acknowledged")
		}
	}
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, map[int]int{0: 1, 1: 1, 2: 1, 3: 1}, effects)
	require.Equal(t, 2, calls[2])
}

// Without an id nothing can be told apart: such an event is given up at once.
func TestOnceNeedsAnID(t *testing.T) {
	box := openInbox(t, "x")
	err := inbox.Once(box, func(context.Context, *sql.Tx, *counted) error { return nil })(t.Context(), &counted{})
	require.True(t, bus.IsPermanent(err))
	err = inbox.OnceRaw(box, func(context.Context, *sql.Tx, *bus.Received) error { return nil })(t.Context(), &bus.Received{})
	require.True(t, bus.IsPermanent(err))
	require.ErrorIs(t, err, state.ErrInvalid)
}
