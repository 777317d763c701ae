package messaging_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/services/messaging"
)

// frailStore is a store of subscriptions that can be away, or answer too late that it has done what it was asked.
type frailStore struct {
	state.Driver
	away  atomic.Bool
	asked atomic.Int64 // while it was away
	sound atomic.Int64 // that many changes are answered; then they are done, and fail for who asked. Negative: all are
}

type frailEngine struct {
	state.Engine
	of *frailStore
}

func (f *frailStore) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	engine, err := f.Driver.Open(ctx, cfg)
	return frailEngine{engine, f}, err
}

func (e frailEngine) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	if e.of.away.Load() {
		e.of.asked.Add(1)
		return nil, state.ErrUnavailable
	}
	return e.Engine.Get(ctx, keys)
}

func (e frailEngine) Apply(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	if e.of.away.Load() {
		return nil, state.ErrUnavailable
	}
	done, err := e.Engine.Apply(ctx, changes)
	if n := e.of.sound.Load(); n == 0 {
		return nil, state.ErrOutcomeUnknown
	} else if n > 0 {
		e.of.sound.Store(n - 1)
	}
	return done, err
}

func newFrailStore(t *testing.T) (*frailStore, *state.Factory) {
	t.Helper()
	sqlite, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	require.NoError(t, err)
	store := &frailStore{Driver: sqlite}
	store.sound.Store(-1)
	factory, err := state.NewFactory([]state.StoreConfig{{Name: messaging.SubscriptionStore, Backend: "sqlite"}}, []state.Driver{store}, state.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, factory.Close()) })
	return store, factory
}

// soon makes an instance finish at once what others have left half done.
func soon(factory *state.Factory) func(c *messaging.Config) {
	return func(c *messaging.Config) {
		often(c)
		c.Factory, c.SubscribeTimeout = factory, 300*time.Millisecond
	}
}

// gone waits until nothing reads a topic, nor keeps it.
func gone(t *testing.T, n *node, topic string) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		status, err := n.try("/messaging/publish", `{"topic":"`+topic+`","payload":{},"options":{"mandatory":true}}`)
		require.NoError(c, err)
		require.Equal(c, 422, status)
	}, 20*time.Second, 5*time.Millisecond)
}

// What was answered with an error does not live, whichever of the store's answers came too late.
func TestASubscriptionThatFailedDoesNotLive(t *testing.T) {
	for changes, name := range []string{"before its queue is opened", "after its queue is opened"} {
		t.Run(name, func(t *testing.T) {
			b := newBroker(t)
			store, factory := newFrailStore(t)
			url, calls := callback(t)
			n := b.start(t, soon(factory))
			store.sound.Store(int64(changes))
			status, answer := n.post("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`","options":{"durable":true}}`)
			require.GreaterOrEqual(t, status, 500, "%v", answer)
			store.sound.Store(-1)
			kept, err := state.Open[object](t.Context(), factory, messaging.SubscriptionStore)
			require.NoError(t, err)
			require.EventuallyWithT(t, func(c *assert.CollectT) {
				all, err := kept.Get(t.Context(), "durable")
				if errors.Is(err, state.ErrNotFound) {
					return // it was not even begun
				}
				require.NoError(c, err)
				require.Empty(c, all)
			}, 20*time.Second, 5*time.Millisecond)
			gone(t, n, "a.b")
			require.Empty(t, calls)
		})
	}
}

// A node that dies before it has told the store that a subscription is open leaves no queue that nobody reads.
func TestAQueueThatADyingNodeLeftIsRemoved(t *testing.T) {
	b := newBroker(t)
	store, factory := newFrailStore(t)
	url, calls := callback(t)
	n := b.start(t, func(c *messaging.Config) { c.Factory = factory })
	b.driver.keepQueues.Store(true)
	store.sound.Store(1)
	b.driver.opened = func() { store.away.Store(true) }
	status, _ := n.post("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`","options":{"durable":true}}`)
	require.Equal(t, 503, status)
	n.stop()
	b.driver.opened = nil
	publishDurably(t, b, "a.b") // the queue is there
	b.driver.keepQueues.Store(false)
	store.away.Store(false)
	store.sound.Store(-1)
	gone(t, b.start(t, soon(factory)), "a.b")
	require.Empty(t, calls)
}

// While one subscription of a group is being removed, which waits for its callback, another joins: its queue stays.
func TestAGroupsQueueStaysForWhoJoinsMeanwhile(t *testing.T) {
	b := newBroker(t)
	n := b.start(t)
	url, calls := callback(t)
	body := `{"topic":"a.b","callbackUrl":"` + url + `","options":{"durable":true,"group":"g"}}`
	id := n.must("/messaging/subscribe", body)["subscriptionId"].(string)
	n.must("/messaging/publish", `{"topic":"a.b","payload":{"n":1}}`)
	atWork := next(t, calls)
	removed := make(chan object, 1)
	go func() { removed <- n.must("/messaging/unsubscribe", `{"subscriptionId":"`+id+`"}`) }()
	kept, err := state.Open[map[string]object](t.Context(), b.factory, messaging.SubscriptionStore)
	require.NoError(t, err)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		all, err := kept.Get(t.Context(), "durable")
		require.NoError(c, err)
		require.NotNil(c, all[id]["endedAt"])
	}, 20*time.Second, time.Millisecond)
	n.must("/messaging/subscribe", body)
	atWork.answer <- 200
	<-removed
	n.must("/messaging/publish", `{"topic":"a.b","payload":{"n":2},"options":{"mandatory":true}}`)
	c := next(t, calls)
	require.Contains(t, c.body, `"n":2`)
	c.answer <- 200
}

// A callback that is gone while the store is away is asked again, until the subscription can be removed.
func TestGoneIsSaidAgain(t *testing.T) {
	b := newBroker(t)
	store, factory := newFrailStore(t)
	url, calls := callback(t)
	n := b.start(t, func(c *messaging.Config) { c.Factory = factory })
	n.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`","options":{"durable":true}}`)
	store.away.Store(true)
	n.must("/messaging/publish", `{"topic":"a.b","payload":{"n":1}}`)
	next(t, calls).answer <- 410
	require.Eventually(t, func() bool { return store.asked.Load() > 0 }, 20*time.Second, time.Millisecond, "it is not removed")
	store.away.Store(false)
	require.Eventually(t, func() bool {
		for {
			select {
			case c := <-calls:
				c.answer <- 410
				continue
			default:
			}
			break
		}
		status, err := n.try("/messaging/publish", `{"topic":"a.b","payload":{"n":2},"options":{"mandatory":true}}`)
		return err == nil && status == 422
	}, 20*time.Second, 5*time.Millisecond)
}
