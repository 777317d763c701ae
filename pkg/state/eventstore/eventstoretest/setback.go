package eventstoretest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// A forgetful engine runs a function once, when so many parts are about to enter what they have read, or to set a stream aside: as the kill and the restart
// of a database between the reading and that.
type forgetful struct {
	eventstore.Engine

	mu      sync.Mutex
	waiting int           // for so many parts
	forget  func()        // what is lost
	done    chan struct{} // closed then
}

func (f *forgetful) arrive() {
	f.mu.Lock()
	if f.waiting--; f.waiting == 0 {
		f.forget()
		close(f.done)
	}
	f.mu.Unlock()
	<-f.done
}

func (f *forgetful) Advance(ctx context.Context, l eventstore.Lease, to eventstore.Advance, within func(*sql.Tx) error) error {
	f.arrive()
	return f.Engine.Advance(ctx, l, to, within)
}

func (f *forgetful) Park(ctx context.Context, l eventstore.Lease, p eventstore.Parked) error {
	f.arrive()
	return f.Engine.Park(ctx, l, p)
}

// A database shows an event a moment before it is on disk. One that is killed then gives the position to another event, and a consumer that has read the first one
// handles the other all the same, however it handles, and whosever partition they are of.
func setBack(t *testing.T, open OpenBoth) {
	ignored := func(context.Context, eventstore.Recorded) error { return nil }
	for name, c := range map[string]struct {
		parts    int // that have read what is lost
		config   eventstore.SubscriptionConfig
		effects  bool // in the transaction, so that what is lost leaves none
		poisoned bool // what is lost cannot be handled
		never    bool // is what is lost handled
	}{
		"all, each event":           {parts: 1, config: eventstore.SubscriptionConfig{Handle: ignored}},
		"all, begun":                {parts: 1, config: eventstore.SubscriptionConfig{Begin: func(context.Context, eventstore.Recorded) func() error { return func() error { return nil } }}},
		"all, in batches":           {parts: 1, never: true, config: eventstore.SubscriptionConfig{HandleBatch: func(context.Context, []eventstore.Recorded) error { return nil }}},
		"all, in a transaction":     {parts: 1, effects: true},
		"category":                  {parts: 1, effects: true, config: eventstore.SubscriptionConfig{Category: "test"}},
		"stream":                    {parts: 1, effects: true, config: eventstore.SubscriptionConfig{Stream: stream("same")}},
		"of partitions":             {parts: 4, effects: true, config: eventstore.SubscriptionConfig{Partitions: 4}},
		"that could not be handled": {parts: 1, effects: true, poisoned: true},
	} {
		t.Run(name, func(t *testing.T) {
			s, db := open(t)
			_, err := db.ExecContext(t.Context(), "CREATE TABLE handled (event VARCHAR(36) NOT NULL)")
			require.NoError(t, err)
			late := eventstore.New(s.Engine(), eventstore.Config{})
			became := stream("same")
			if c.parts > 1 {
				became = stream("other")
			}
			lost, there := event("lost"), event("there")
			// As if the claim had been before: what is there then is on disk.
			engine := &forgetful{Engine: s.Engine(), waiting: c.parts, done: make(chan struct{}), forget: func() {
				_, err := db.ExecContext(t.Context(), "DELETE FROM events WHERE position > 1")
				require.NoError(t, err)
				mustAppend(t, late, became, eventstore.Any, there)
			}}
			mu, handled := sync.Mutex{}, map[string]int{}
			note := func(e eventstore.Recorded) {
				mu.Lock()
				defer mu.Unlock()
				handled[e.Type]++
			}
			config := c.config
			config.Attempts, config.Poll = 1, 10*time.Millisecond
			switch {
			case config.Handle != nil:
				config.Handle = func(_ context.Context, e eventstore.Recorded) error { note(e); return nil }
			case config.Begin != nil:
				config.Begin = func(_ context.Context, e eventstore.Recorded) func() error {
					return func() error { note(e); return nil }
				}
			case config.HandleBatch != nil:
				config.HandleBatch = func(_ context.Context, events []eventstore.Recorded) error {
					for _, e := range events {
						note(e)
					}
					return nil
				}
			default:
				config.HandleIn = func(ctx context.Context, tx *sql.Tx, e eventstore.Recorded) error {
					if c.poisoned && e.Type == "lost" {
						return errors.New("it cannot be handled")
					}
					_, err := tx.ExecContext(ctx, "INSERT INTO handled (event) VALUES (?)", e.Type)
					return err
				}
			}
			subscribe(t, eventstore.New(engine, eventstore.Config{}), config)
			require.Eventually(t, func() bool {
				marks, err := s.Marks(t.Context(), "sub")
				return err == nil && len(marks) == max(1, config.Partitions)
			}, patience, 10*time.Millisecond, "it is there before the events are")
			mustAppend(t, s, stream("same"), eventstore.Any, event("first"), lost)
			count := func(t require.TestingT, kind string) (n int) {
				if !c.effects {
					mu.Lock()
					defer mu.Unlock()
					return handled[kind]
				}
				require.NoError(t, db.QueryRowContext(context.Background(), "SELECT COUNT(*) FROM handled WHERE event = ?", kind).Scan(&n))
				return n
			}
			require.EventuallyWithT(t, func(c *assert.CollectT) {
				require.Positive(c, count(c, "first"))
				require.Positive(c, count(c, "there"))
			}, patience, 10*time.Millisecond, "the event that has the position is handled")
			if c.never {
				require.Zero(t, count(t, "lost"))
			}
			if c.effects {
				require.Equal(t, []int{1, 1, 0}, []int{count(t, "first"), count(t, "there"), count(t, "lost")})
			}
			parked, err := s.Parked(t.Context(), "sub")
			require.NoError(t, err)
			require.Empty(t, parked)
		})
	}
}

// What comes behind the events that an earlier consumer has handled is handled once: those are not looked for again, and nothing is taken for lost.
func goneOn(t *testing.T, open OpenBoth) {
	for name, config := range map[string]eventstore.SubscriptionConfig{
		"all": {}, "category": {Category: "test"}, "stream": {Stream: stream("same")}, "partitions": {Partitions: 3},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t)
			var mu sync.Mutex
			handled := map[string]int{}
			config.Handle = func(_ context.Context, e eventstore.Recorded) error {
				mu.Lock()
				defer mu.Unlock()
				handled[e.Type]++
				return nil
			}
			at := func(position int64) {
				t.Helper()
				require.Eventually(t, func() bool {
					marks, err := s.Marks(t.Context(), "sub")
					for _, m := range marks {
						if m.Consumer == "" || m.Position != position {
							return false
						}
					}
					return err == nil && len(marks) == max(1, config.Partitions)
				}, patience, 5*time.Millisecond)
			}
			once := map[string]int{}
			next := func() {
				t.Helper()
				kind := fmt.Sprint("event", len(once))
				mustAppend(t, s, stream("same"), eventstore.Any, event(kind))
				once[kind] = 1
				at(int64(len(once)))
			}
			for range 3 {
				sub := subscribe(t, s, config)
				at(int64(len(once)))
				next()
				next()
				require.NoError(t, sub.Close(t.Context()))
			}
			mu.Lock()
			defer mu.Unlock()
			require.Equal(t, once, handled)
		})
	}
}
