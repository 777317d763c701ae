package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
)

// AccountDeleted is another event of accounts.
type AccountDeleted struct{ AccountCreated }

func (*AccountDeleted) EventName() string { return "AccountDeletedEvent" }

// registry is what eventgen generates from schemas.
func registry(topic string) (bus.Event, bool) {
	switch topic {
	case "account.created":
		return new(AccountCreated), true
	case "account.deleted":
		return new(AccountDeleted), true
	default:
		return nil, false
	}
}

// A program registers its handlers where it makes what they need, and subscribes them by one call.
func ExampleConsumers() {
	ctx := context.Background()
	driver := memorybus.New(memorybus.Config{})
	defer driver.Close(ctx)
	b, err := bus.New(driver, bus.Config{})
	if err != nil {
		panic(err)
	}
	defer b.Close(ctx)

	said := make(chan string)
	consumers := bus.NewConsumers(registry)
	err = errors.Join(
		bus.Consume(consumers, "account.created", "greet", func(_ context.Context, e *AccountCreated) error {
			said <- "welcome, " + e.AccountID
			return nil
		}, bus.SubscriptionOptions{}),
		consumers.ConsumeAny("account.*", "audit", func(_ context.Context, e bus.Event) error {
			if gone, is := e.(*AccountDeleted); is {
				said <- "good bye, " + gone.AccountID
			}
			return nil
		}, bus.SubscriptionOptions{}),
		consumers.Subscribe(b),
	)
	if err != nil {
		panic(err)
	}
	go b.Run(ctx)
	<-b.Running()

	if _, err := b.Publish(ctx, "account.created", &AccountCreated{AccountID: "a-1"}); err != nil {
		panic(err)
	}
	fmt.Println(<-said)
	if _, err := b.Publish(ctx, "account.deleted", &AccountDeleted{AccountCreated{AccountID: "a-1"}}); err != nil {
		panic(err)
	}
	fmt.Println(<-said)
	fmt.Println(bus.Consume(consumers, "account.deleted", "forget", func(context.Context, *AccountCreated) error { return nil }, bus.SubscriptionOptions{}))
	// Output:
	// welcome, a-1
	// good bye, a-1
	// handler "forget" takes *bus_test.AccountCreated, and "account.deleted" carries *bus_test.AccountDeleted: the topic carries another event
}

func nothing[E any](context.Context, E) error { return nil }

func TestConsumersRefuseWhatTheRegistryDoesNotHave(t *testing.T) {
	c := bus.NewConsumers(registry)
	require.NoError(t, bus.Consume(c, "account.created", "greet", nothing[*AccountCreated], bus.SubscriptionOptions{}))
	require.ErrorIs(t, bus.Consume(c, "account.created", "greet", nothing[*AccountCreated], bus.SubscriptionOptions{}), bus.ErrDuplicateHandler)
	require.ErrorIs(t, c.ConsumeAny("account.created", "greet", nothing[bus.Event], bus.SubscriptionOptions{}), bus.ErrDuplicateHandler)
	require.NoError(t, c.ConsumeAny("account.deleted", "greet", nothing[bus.Event], bus.SubscriptionOptions{}), "another topic")

	err := bus.Consume(c, "account.deleted", "forget", nothing[*AccountCreated], bus.SubscriptionOptions{})
	require.ErrorIs(t, err, bus.ErrWrongEvent)
	require.ErrorContains(t, err, "*bus_test.AccountCreated")
	require.ErrorContains(t, err, "*bus_test.AccountDeleted")
	for _, err := range []error{
		bus.Consume(c, "account.vanished", "forget", nothing[*AccountDeleted], bus.SubscriptionOptions{}),
		c.ConsumeAny("account.vanished", "forget", nothing[bus.Event], bus.SubscriptionOptions{}),
	} {
		require.ErrorIs(t, err, bus.ErrUnknownTopic)
		require.ErrorContains(t, err, "account.vanished")
	}

	b := start(t, broker(t, true), bus.Config{})
	err = c.Subscribe(b)
	require.ErrorIs(t, err, bus.ErrWrongEvent, "who did not look is told here")
	require.ErrorIs(t, err, bus.ErrUnknownTopic)
	require.NoError(t, bus.Handle(b, "account.created", "greet", nothing[*AccountCreated], bus.SubscriptionOptions{}), "nothing is subscribed")
}

// One handler that cannot be subscribed keeps all others from it, so that a program does not run with half of them.
func TestConsumersSubscribeAllOrNone(t *testing.T) {
	b := start(t, broker(t, true), bus.Config{})
	require.NoError(t, bus.Handle(b, "account.created", "taken", nothing[*AccountCreated], bus.SubscriptionOptions{}))
	for what, bad := range map[string]func(c *bus.Consumers) error{
		"a name that no queue can have": func(c *bus.Consumers) error {
			return bus.Consume(c, "account.created", "a b", nothing[*AccountCreated], bus.SubscriptionOptions{})
		},
		"a name that is too long": func(c *bus.Consumers) error {
			return bus.Consume(c, "account.created", strings.Repeat("x", 250), nothing[*AccountCreated], bus.SubscriptionOptions{})
		},
		"an option that means nothing": func(c *bus.Consumers) error {
			return bus.Consume(c, "account.created", "slow", nothing[*AccountCreated], bus.SubscriptionOptions{Timeout: -1})
		},
		"a handler that the bus has": func(c *bus.Consumers) error {
			return bus.Consume(c, "account.created", "taken", nothing[*AccountCreated], bus.SubscriptionOptions{Queue: "other"})
		},
		"a queue that is read by another": func(c *bus.Consumers) error {
			return bus.Consume(c, "account.created", "other", nothing[*AccountCreated], bus.SubscriptionOptions{Group: "bannou.taken"})
		},
		"a queue that two would read": func(c *bus.Consumers) error {
			return bus.Consume(c, "account.deleted", "good", nothing[*AccountDeleted], bus.SubscriptionOptions{Queue: "account.created.bannou.good"})
		},
	} {
		t.Run(what, func(t *testing.T) {
			c := bus.NewConsumers(registry)
			require.NoError(t, bus.Consume(c, "account.created", "good", nothing[*AccountCreated], bus.SubscriptionOptions{}))
			require.NoError(t, bad(c))
			err := c.Subscribe(b)
			require.Error(t, err)
			require.True(t, errors.Is(err, bus.ErrInvalid) || errors.Is(err, bus.ErrDuplicateHandler), err)
			topics, err := b.Topics(t.Context())
			require.NoError(t, err)
			for _, topic := range topics {
				require.NotEqual(t, "account.deleted", topic.Name)
			}
			require.NoError(t, bus.Handle(b, "account.created", "good."+strings.ReplaceAll(what, " ", "-"), nothing[*AccountCreated], bus.SubscriptionOptions{}))
		})
	}
	c := bus.NewConsumers(registry)
	require.NoError(t, bus.Consume(c, "account.created", "good", nothing[*AccountCreated], bus.SubscriptionOptions{}))
	require.NoError(t, c.Subscribe(b), "none of the attempts has left it behind")
	require.ErrorIs(t, c.Subscribe(b), bus.ErrDuplicateHandler)
}

// A handler that fails, one that hangs and one that cannot decode leave the others alone.
func TestConsumersAreIndependent(t *testing.T) {
	d := broker(t, true)
	b := start(t, d, bus.Config{RetryDelay: time.Millisecond, RetryMaxAttempts: 2, ImmediateRetries: -1})
	c := bus.NewConsumers(registry)
	leave, handled, failed := make(chan struct{}), make(chan string, 10), make(chan int, 10)
	require.NoError(t, errors.Join(
		bus.Consume(c, "account.created", "fine", func(_ context.Context, e *AccountCreated) error {
			handled <- "fine " + e.AccountID
			return nil
		}, bus.SubscriptionOptions{}),
		c.ConsumeAny("#", "any", func(_ context.Context, e bus.Event) error {
			handled <- e.EventName()
			return nil
		}, bus.SubscriptionOptions{}),
		bus.Consume(c, "account.created", "failing", func(ctx context.Context, _ *AccountCreated) error {
			r, _ := bus.ReceivedFrom(ctx)
			failed <- r.Attempt
			return errors.New("no")
		}, bus.SubscriptionOptions{}),
		bus.Consume(c, "account.created", "hanging", func(context.Context, *AccountCreated) error {
			<-leave
			return nil
		}, bus.SubscriptionOptions{}),
	))
	run(t, b)
	defer close(leave)
	require.NoError(t, c.Subscribe(b), "also on a bus that runs")
	_, err := b.Publish(t.Context(), "account.created", &AccountCreated{AccountID: "a-1"})
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"fine a-1", "AccountCreatedEvent"}, []string{<-handled, <-handled})
	require.Equal(t, []int{1, 2, 3}, []int{<-failed, <-failed, <-failed})

	_, err = b.PublishRaw(t.Context(), "account.unheard-of", []byte(`{}`), bus.PublishOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return waiting(t, d, memorybus.DeadLetterStore) == 2 }, wait, tick,
		"that of the handler that failed, and the event that the registry does not know")
	require.Empty(t, handled)
	require.Empty(t, failed)
}
