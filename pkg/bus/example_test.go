package bus_test

import (
	"context"
	"fmt"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
)

// AccountCreated is an event: one flat JSON object with eventId and timestamp.
type AccountCreated struct {
	EventID   string    `json:"eventId"`
	Timestamp time.Time `json:"timestamp"`
	AccountID string    `json:"accountId"`
}

func (*AccountCreated) EventName() string { return "AccountCreatedEvent" }

func (e *AccountCreated) Stamp(id string, at time.Time) (string, time.Time) {
	if e.EventID == "" {
		e.EventID = id
	}
	if e.Timestamp.IsZero() {
		e.Timestamp = at
	}
	return e.EventID, e.Timestamp
}

func Example() {
	ctx := context.Background()
	driver := memorybus.New(memorybus.Config{})
	defer driver.Close(ctx)
	b, err := bus.New(driver, bus.Config{})
	if err != nil {
		panic(err)
	}
	defer b.Close(ctx)

	handled := make(chan string)
	err = bus.Handle(b, "account.created", "greet", func(_ context.Context, e *AccountCreated) error {
		handled <- e.AccountID
		return nil
	}, bus.SubscriptionOptions{})
	if err != nil {
		panic(err)
	}
	go b.Run(ctx)
	<-b.Running()

	if _, err := b.Publish(ctx, "account.created", &AccountCreated{AccountID: "a-1"}); err != nil {
		panic(err)
	}
	fmt.Println("welcome,", <-handled)
	// Output: welcome, a-1
}

// A subscription that is made and closed at run time, here to all events of one session.
func ExampleBus_SubscribeRaw() {
	ctx := context.Background()
	driver := memorybus.New(memorybus.Config{})
	defer driver.Close(ctx)
	b, err := bus.New(driver, bus.Config{})
	if err != nil {
		panic(err)
	}
	defer b.Close(ctx)

	seen := make(chan string)
	sub, err := b.SubscribeRaw(ctx, "session.s-1.*", func(_ context.Context, r *bus.Received) error {
		seen <- r.Topic
		return nil
	}, bus.SubscriptionOptions{})
	if err != nil {
		panic(err)
	}
	if _, err := b.PublishRaw(ctx, "session.s-1.capabilities", []byte(`{"add":["move"]}`), bus.PublishOptions{}); err != nil {
		panic(err)
	}
	fmt.Println(<-seen)
	fmt.Println(sub.Close(ctx))
	// Output:
	// session.s-1.capabilities
	// <nil>
}
