package statetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// An InboxPlace is where inboxes are kept.
type InboxPlace struct {
	// Open returns a driver on the place, as another process would open it, that removes old marks every SweepInterval.
	Open func(t *testing.T, sweepInterval time.Duration) state.InboxDriver
	// DB is the database of a SQL engine; nil: the inbox has no transactions, and Open returns the same driver each time.
	DB *sql.DB
}

// RunInbox checks that a driver keeps the promises of state.Inbox.
func RunInbox(t *testing.T, newPlace func(t *testing.T) InboxPlace) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *inboxTest)
	}{
		{"a message is handled once", inboxOnce},
		{"a failure leaves no mark", inboxFailure},
		{"two at once", inboxTwoAtOnce},
		{"the second has its turn when the first fails", inboxSecondTurn},
		{"inboxes are apart", inboxesAreApart},
		{"bad ids and ended contexts", inboxRefusals},
		{"many at once, some of which fail", inboxMany},
		{"old marks are removed", inboxCleaned},
		{"with the entries of an outbox", inboxToOutbox},
	} {
		t.Run(c.name, func(t *testing.T) {
			place := newPlace(t)
			if place.DB != nil {
				_, err := place.DB.ExecContext(t.Context(), "CREATE TABLE effects (message VARBINARY(255) NOT NULL)")
				require.NoError(t, err)
			}
			c.run(t, &inboxTest{InboxPlace: place})
		})
	}
}

// An inboxTest counts effects: rows of a table, or in memory calls that succeeded.
type inboxTest struct {
	InboxPlace
	memory sync.Map // messages
	calls  atomic.Int64
}

func (i *inboxTest) open(t *testing.T, d state.InboxDriver, name string) state.Inbox {
	t.Helper()
	box, err := d.OpenInbox(t.Context(), state.InboxConfig{Name: name})
	require.NoError(t, err)
	return box
}

// effect is a handler that has an effect and then fails, or does not.
func (i *inboxTest) effect(ctx context.Context, message string, failure error) func(tx *sql.Tx) error {
	return func(tx *sql.Tx) error {
		i.calls.Add(1)
		if tx == nil {
			if failure == nil {
				n, _ := i.memory.LoadOrStore(message, new(atomic.Int64))
				n.(*atomic.Int64).Add(1) //nolint:forcetypeassert // nothing else is in the map
			}
			return failure
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO effects (message) VALUES (?)", message); err != nil {
			return err
		}
		return failure
	}
}

// effects is how often each message had its effect.
func (i *inboxTest) effects(t *testing.T) map[string]int {
	t.Helper()
	all := map[string]int{}
	if i.DB == nil {
		i.memory.Range(func(message, n any) bool {
			all[message.(string)] = int(n.(*atomic.Int64).Load()) //nolint:forcetypeassert // as above
			return true
		})
		return all
	}
	rows, err := i.DB.QueryContext(t.Context(), "SELECT message, COUNT(*) FROM effects GROUP BY message")
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	for rows.Next() {
		var message string
		var n int
		require.NoError(t, rows.Scan(&message, &n))
		all[message] = n
	}
	require.NoError(t, rows.Err())
	return all
}

func inboxOnce(t *testing.T, i *inboxTest) {
	for range 2 { // and in the next process
		box := i.open(t, i.Open(t, time.Minute), "box")
		for _, id := range []string{"one", "One", "two", strings.Repeat("x", state.MaxKeyBytes)} {
			_, err := box.Handle(t.Context(), id, i.effect(t.Context(), id, nil))
			require.NoError(t, err)
			repeated, err := box.Handle(t.Context(), id, i.effect(t.Context(), id, nil))
			require.NoError(t, err)
			require.True(t, repeated)
		}
	}
	require.Equal(t, map[string]int{"one": 1, "One": 1, "two": 1, strings.Repeat("x", state.MaxKeyBytes): 1}, i.effects(t))
}

var errOwn = errors.New("it does not like the message")

func inboxFailure(t *testing.T, i *inboxTest) {
	box := i.open(t, i.Open(t, time.Minute), "box")
	for range 3 {
		repeated, err := box.Handle(t.Context(), "one", i.effect(t.Context(), "one", errOwn))
		require.Equal(t, errOwn, err, "as it is")
		require.False(t, repeated)
	}
	require.Panics(t, func() {
		_, _ = box.Handle(t.Context(), "one", func(tx *sql.Tx) error {
			_ = i.effect(t.Context(), "one", errOwn)(tx)
			panic("a panic undoes it too")
		})
	})
	require.Empty(t, i.effects(t))
	repeated, err := box.Handle(t.Context(), "one", i.effect(t.Context(), "one", nil))
	require.NoError(t, err)
	require.False(t, repeated)
	require.Equal(t, map[string]int{"one": 1}, i.effects(t))
}

// both begins to handle one message twice, by two drivers, while the first handler is held. It returns what both were told.
func (i *inboxTest) both(t *testing.T, failure error) (first, second error, repeated bool) {
	t.Helper()
	one, two := i.open(t, i.Open(t, time.Minute), "box"), i.open(t, i.Open(t, time.Minute), "box")
	begun, release := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		_, first = one.Handle(t.Context(), "one", func(tx *sql.Tx) error {
			close(begun)
			<-release
			return i.effect(t.Context(), "one", failure)(tx)
		})
	})
	<-begun
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		repeated, second = two.Handle(t.Context(), "one", i.effect(t.Context(), "one", nil))
	}()
	select {
	case <-ended:
		require.Fail(t, "the second does not wait")
	case <-time.After(100 * time.Millisecond): // it has no sign to give
	}
	require.Zero(t, i.calls.Load(), "the second does not wait")
	close(release)
	all.Wait()
	<-ended
	return first, second, repeated
}

func inboxTwoAtOnce(t *testing.T, i *inboxTest) {
	first, second, repeated := i.both(t, nil)
	require.NoError(t, first)
	require.NoError(t, second)
	require.True(t, repeated)
	require.Equal(t, map[string]int{"one": 1}, i.effects(t))
	require.EqualValues(t, 1, i.calls.Load())
}

func inboxSecondTurn(t *testing.T, i *inboxTest) {
	first, second, repeated := i.both(t, errOwn)
	require.Equal(t, errOwn, first)
	require.NoError(t, second)
	require.False(t, repeated)
	require.Equal(t, map[string]int{"one": 1}, i.effects(t))
}

func inboxesAreApart(t *testing.T, i *inboxTest) {
	d := i.Open(t, time.Minute)
	for _, name := range []string{"box", "Box"} {
		repeated, err := i.open(t, d, name).Handle(t.Context(), "one", i.effect(t.Context(), name, nil))
		require.NoError(t, err)
		require.False(t, repeated)
	}
	require.Equal(t, map[string]int{"box": 1, "Box": 1}, i.effects(t))
}

func inboxRefusals(t *testing.T, i *inboxTest) {
	d := i.Open(t, time.Minute)
	box := i.open(t, d, "box")
	for _, id := range []string{"", strings.Repeat("x", state.MaxKeyBytes+1)} {
		_, err := box.Handle(t.Context(), id, i.effect(t.Context(), "bad", nil))
		require.ErrorIs(t, err, state.ErrInvalid)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := box.Handle(ended, "one", i.effect(t.Context(), "bad", nil))
	require.ErrorIs(t, err, context.Canceled)
	for _, cfg := range []state.InboxConfig{{}, {Name: strings.Repeat("x", state.MaxKeyBytes+1)}, {Name: "box", Horizon: -1}} {
		_, err := d.OpenInbox(t.Context(), cfg)
		require.ErrorIs(t, err, state.ErrInvalid)
	}
	require.Empty(t, i.effects(t))
}

// Eight receivers are each given every message until it is handled; every seventh call fails.
func inboxMany(t *testing.T, i *inboxTest) {
	const receivers, messages = 8, 40
	var calls atomic.Int64
	var all sync.WaitGroup
	failures := make(chan error, receivers*messages)
	for range receivers {
		box := i.open(t, i.Open(t, time.Minute), "box")
		all.Go(func() {
			for m := range messages {
				for {
					var failure error
					if calls.Add(1)%7 == 0 {
						failure = errOwn
					}
					_, err := box.Handle(t.Context(), strconv.Itoa(m), i.effect(t.Context(), strconv.Itoa(m), failure))
					if err == nil {
						break
					}
					if !errors.Is(err, errOwn) && !errors.Is(err, state.ErrUnavailable) {
						failures <- err
						return
					}
				}
			}
		})
	}
	all.Wait()
	close(failures)
	require.NoError(t, <-failures)
	want := map[string]int{}
	for m := range messages {
		want[strconv.Itoa(m)] = 1
	}
	require.Equal(t, want, i.effects(t))
}

// Marks are removed when they are older than the horizon, more than a batch of them too, and younger ones stay.
func inboxCleaned(t *testing.T, i *inboxTest) {
	d, other := i.Open(t, 20*time.Millisecond), i.Open(t, 20*time.Millisecond)
	short, err := d.OpenInbox(t.Context(), state.InboxConfig{Name: "short", Horizon: 50 * time.Millisecond})
	require.NoError(t, err)
	_, err = other.OpenInbox(t.Context(), state.InboxConfig{Name: "short", Horizon: 50 * time.Millisecond})
	require.NoError(t, err)
	long := i.open(t, d, "long")
	for _, box := range []state.Inbox{short, long} {
		_, err := box.Handle(t.Context(), "one", i.effect(t.Context(), "one", nil))
		require.NoError(t, err)
	}
	marks := func(name string) (n int, err error) {
		err = i.DB.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM inbox WHERE name = ?", name).Scan(&n)
		return n, err
	}
	if i.DB != nil {
		values := strings.TrimSuffix(strings.Repeat("('short', ?, 0),", 1200), ",")
		ids := make([]any, 1200)
		for n := range ids {
			ids[n] = fmt.Sprint("old", n)
		}
		_, err := i.DB.ExecContext(t.Context(), "INSERT INTO inbox (name, message_id, handled_at) VALUES "+values, ids...)
		require.NoError(t, err)
		require.Eventually(t, func() bool { n, err := marks("short"); return err == nil && n == 0 }, 20*time.Second, 10*time.Millisecond)
		n, err := marks("long")
		require.NoError(t, err)
		require.Equal(t, 1, n)
	}
	require.Eventually(t, func() bool {
		repeated, err := short.Handle(t.Context(), "one", func(*sql.Tx) error { return errOwn })
		return !repeated && errors.Is(err, errOwn)
	}, 20*time.Second, 10*time.Millisecond, "it is handled again")
	repeated, err := long.Handle(t.Context(), "one", i.effect(t.Context(), "one", nil))
	require.NoError(t, err)
	require.True(t, repeated)
}

// What a handler sends on is in an outbox with its mark and its effect, or none of them is.
func inboxToOutbox(t *testing.T, i *inboxTest) {
	d := i.Open(t, time.Minute)
	out, able := d.(state.OutboxDriver)
	if !able {
		t.Skip("this driver keeps no outboxes")
	}
	inbox, outbox := i.open(t, d, "box"), openOutbox(t, out)
	handle := func(failure error) error {
		_, err := inbox.Handle(t.Context(), "one", func(tx *sql.Tx) error {
			if err := i.effect(t.Context(), "one", nil)(tx); err != nil {
				return err
			}
			if err := outbox.EnqueueIn(t.Context(), tx, entry("k", "1"), entry("k", "2")); err != nil {
				return err
			}
			return failure
		})
		return err
	}
	require.Equal(t, errOwn, handle(errOwn))
	require.Empty(t, claim(t, outbox, "me"))
	require.Empty(t, i.effects(t))
	require.NoError(t, handle(nil))
	require.NoError(t, handle(nil))
	require.Equal(t, []string{"1", "2"}, bodies(claim(t, outbox, "me")))
	require.Equal(t, map[string]int{"one": 1}, i.effects(t))

	require.ErrorIs(t, outbox.EnqueueIn(t.Context(), nil, entry("k", "3")), state.ErrInvalid)
	transact := func(failure error) error {
		return outbox.Transact(t.Context(), func(tx *sql.Tx) ([]state.OutboxEntry, error) {
			if err := i.effect(t.Context(), "two", nil)(tx); err != nil {
				return nil, err
			}
			return []state.OutboxEntry{entry("k", "3")}, failure
		})
	}
	require.ErrorIs(t, transact(errOwn), errOwn)
	require.Equal(t, map[string]int{"one": 1}, i.effects(t))
	require.NoError(t, transact(nil))
	require.Equal(t, map[string]int{"one": 1, "two": 1}, i.effects(t))
	require.Equal(t, []string{"1", "2", "3"}, bodies(claim(t, outbox, "me")))
	stats, err := outbox.Stats(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3, stats.Depth)
	full := openOutbox(t, out, func(cfg *state.OutboxConfig) { cfg.Name, cfg.MaxEntries = "small", 1 })
	require.ErrorIs(t, full.Transact(t.Context(), func(tx *sql.Tx) ([]state.OutboxEntry, error) {
		return []state.OutboxEntry{entry("", "1"), entry("", "2")}, i.effect(t.Context(), "three", nil)(tx)
	}), state.ErrFull)
	require.Equal(t, map[string]int{"one": 1, "two": 1}, i.effects(t))
}
