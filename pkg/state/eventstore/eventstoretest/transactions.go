package eventstoretest

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// OpenBoth returns an empty log and its database.
type OpenBoth func(t *testing.T) (*eventstore.Store, *sql.DB)

// RunTransactions checks what an engine promises whose log is in a SQL database.
func RunTransactions(t *testing.T, open OpenBoth) {
	t.Run("handled once in effect", func(t *testing.T) { handledOnce(t, open) })
	t.Run("handled once although answers do not come", func(t *testing.T) { handledOnceUnanswered(t, open) })
	t.Run("what the database has lost again is not passed over", func(t *testing.T) { setBack(t, open) })
	t.Run("what a subscription has handled is not taken for lost when it goes on", func(t *testing.T) { goneOn(t, open) })
	t.Run("a poison event leaves nothing behind", func(t *testing.T) { poisonLeavesNothing(t, open) })
	t.Run("hints between processes", func(t *testing.T) { hints(t, open) })
}

// What a handler does in its transaction is done once for each event, although it fails now and then after it has done it, events come in
// transactions of several, and partitions go from one consumer to the other.
func handledOnce(t *testing.T, open OpenBoth) {
	s, db := open(t)
	_, err := db.ExecContext(t.Context(), "CREATE TABLE handled (position BIGINT NOT NULL, stream VARCHAR(64) NOT NULL, version BIGINT NOT NULL)")
	require.NoError(t, err)
	const streams, each = 10, 30
	for range each / 10 {
		for i := range streams {
			mustAppend(t, s, stream(strconv.Itoa(i)), eventstore.Any, event("x"), event("x"), event("x"), event("x"), event("x"))
		}
	}
	var calls atomic.Int64
	config := eventstore.SubscriptionConfig{Partitions: 3, Lease: 300 * time.Millisecond, Batch: 7, Attempts: 1000,
		HandleIn: func(ctx context.Context, tx *sql.Tx, e eventstore.Recorded) error {
			if _, err := tx.ExecContext(ctx, "INSERT INTO handled (position, stream, version) VALUES (?, ?, ?)", e.Position, e.Stream.ID, e.Version); err != nil {
				return err
			}
			if calls.Add(1)%11 == 0 {
				return errors.New("now and then")
			}
			return nil
		}}
	first := subscribe(t, s, config)
	subscribe(t, eventstore.New(&unrenewed{Engine: s.Engine()}, eventstore.Config{}), config)
	count := func(t require.TestingT) (n int) {
		require.NoError(t, db.QueryRowContext(context.Background(), "SELECT COUNT(*) FROM handled").Scan(&n))
		return n
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.Greater(c, count(c), streams*each/4) }, patience, 10*time.Millisecond)
	require.NoError(t, first.Close(t.Context()))
	subscribe(t, s, config)
	for range each / 10 {
		for i := range streams {
			mustAppend(t, s, stream(strconv.Itoa(i)), eventstore.Any, event("x"), event("x"), event("x"), event("x"), event("x"))
		}
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.GreaterOrEqual(c, count(c), streams*each) }, patience, 10*time.Millisecond)
	var positions int
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT COUNT(DISTINCT position) FROM handled").Scan(&positions))
	require.Equal(t, streams*each, count(t))
	require.Equal(t, streams*each, positions)
}

// An unanswered engine makes the transactions of handlers, and says of every other one that it does not know.
type unanswered struct {
	eventstore.Engine

	calls atomic.Int64
}

func (u *unanswered) answer(err error, within func(*sql.Tx) error) error {
	if err == nil && within != nil && u.calls.Add(1)%2 == 0 {
		return state.ErrOutcomeUnknown
	}
	return err
}

func (u *unanswered) Advance(ctx context.Context, l eventstore.Lease, to eventstore.Advance, within func(*sql.Tx) error) error {
	return u.answer(u.Engine.Advance(ctx, l, to, within), within)
}

func (u *unanswered) Replayed(ctx context.Context, l eventstore.Lease, s eventstore.StreamID, next int64, done bool, within func(*sql.Tx) error) error {
	return u.answer(u.Engine.Replayed(ctx, l, s, next, done, within), within)
}

// A transaction may have been made although its answer did not come: its events are not handled again, also those of a stream that was parked.
func handledOnceUnanswered(t *testing.T, open OpenBoth) {
	s, db := open(t)
	_, err := db.ExecContext(t.Context(), "CREATE TABLE handled (position BIGINT NOT NULL)")
	require.NoError(t, err)
	const ill, well = 4, 40
	for range ill {
		mustAppend(t, s, stream("ill"), eventstore.Any, event("x"))
		mustAppend(t, s, stream("well"), eventstore.Any, slices.Repeat([]eventstore.Event{event("x")}, well/ill)...)
	}
	var healed atomic.Bool
	subscribe(t, eventstore.New(&unanswered{Engine: s.Engine()}, eventstore.Config{}), eventstore.SubscriptionConfig{Batch: 7, Attempts: 1, Poll: 10 * time.Millisecond,
		HandleIn: func(ctx context.Context, tx *sql.Tx, e eventstore.Recorded) error {
			if e.Stream == stream("ill") && !healed.Load() {
				return errors.New("not yet")
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO handled (position) VALUES (?)", e.Position)
			return err
		}})
	handled := func(t require.TestingT) (all, positions int) {
		require.NoError(t, db.QueryRowContext(context.Background(), "SELECT COUNT(*), COUNT(DISTINCT position) FROM handled").Scan(&all, &positions))
		return all, positions
	}
	come := func(n int) {
		t.Helper()
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			_, positions := handled(c)
			require.GreaterOrEqual(c, positions, n)
		}, patience, 10*time.Millisecond)
	}
	come(well)
	healed.Store(true)
	require.NoError(t, s.Unpark(t.Context(), "sub", stream("ill"), false))
	come(well + ill)
	all, positions := handled(t)
	require.Equal(t, well+ill, all)
	require.Equal(t, well+ill, positions)
}

// The transaction of an event that fails is undone, also when the stream is replayed.
func poisonLeavesNothing(t *testing.T, open OpenBoth) {
	s, db := open(t)
	_, err := db.ExecContext(t.Context(), "CREATE TABLE handled (version BIGINT NOT NULL)")
	require.NoError(t, err)
	var healed atomic.Bool
	subscribe(t, s, eventstore.SubscriptionConfig{Attempts: 2, HandleIn: func(ctx context.Context, tx *sql.Tx, e eventstore.Recorded) error {
		if _, err := tx.ExecContext(ctx, "INSERT INTO handled (version) VALUES (?)", e.Version); err != nil {
			return err
		}
		if e.Version == 2 && !healed.Load() {
			return errors.New("no")
		}
		return nil
	}})
	mustAppend(t, s, stream("a"), 0, event("x"), event("x"), event("x"), event("x"))
	mustAppend(t, s, stream("b"), 0, event("x"))
	require.Eventually(t, func() bool {
		marks, err := s.Marks(t.Context(), "sub")
		return err == nil && len(marks) == 1 && marks[0].Position == 5
	}, patience, 10*time.Millisecond)
	versions := func() (all []int64) {
		rows, err := db.QueryContext(t.Context(), "SELECT version FROM handled ORDER BY version")
		require.NoError(t, err)
		defer func() { require.NoError(t, rows.Close()) }()
		for rows.Next() {
			var v int64
			require.NoError(t, rows.Scan(&v))
			all = append(all, v)
		}
		require.NoError(t, rows.Err())
		return all
	}
	require.Equal(t, []int64{1, 1}, versions())
	require.NoError(t, s.Unpark(t.Context(), "sub", stream("a"), false))
	require.Eventually(t, func() bool {
		all, err := s.Parked(t.Context(), "sub")
		return err == nil && len(all) == 1 && !all[0].Released
	}, patience, 10*time.Millisecond)
	require.Equal(t, []int64{1, 1}, versions())
	healed.Store(true)
	require.NoError(t, s.Unpark(t.Context(), "sub", stream("a"), false))
	require.Eventually(t, func() bool {
		all, err := s.Parked(t.Context(), "sub")
		return err == nil && len(all) == 0
	}, patience, 10*time.Millisecond)
	require.Equal(t, []int64{1, 1, 2, 3, 4}, versions())
}

// A subscription of one process hears at once of what another one appends, by a hint, and without one when it looks.
func hints(t *testing.T, open OpenBoth) {
	s, _ := open(t)
	other := eventstore.New(s.Engine(), eventstore.Config{OnAppend: func(context.Context, int64) { s.Hint() }})
	deaf := eventstore.New(s.Engine(), eventstore.Config{})
	told, looking := newRecorder(), newRecorder()
	subscribe(t, s, eventstore.SubscriptionConfig{Name: "told", Handle: told.handle, Poll: time.Hour})
	subscribe(t, s, eventstore.SubscriptionConfig{Name: "looking", Handle: looking.handle})
	mustAppend(t, s, stream("a"), eventstore.Any, event("x"))
	told.wait(t, 1)
	mustAppend(t, deaf, stream("a"), eventstore.Any, event("x"))
	looking.wait(t, 2)
	require.Len(t, told.seen(), 1, "it was not told")
	mustAppend(t, other, stream("a"), eventstore.Any, event("x"))
	told.wait(t, 3)
}
