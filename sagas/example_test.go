package sagas_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
	"github.com/bannou-mesh/bannou/sagas"
)

// An Order is the data of the saga.
type Order struct {
	ID     string `json:"id"`
	Amount int    `json:"amount"`
}

// OrderEvent is what all events of the example are.
type OrderEvent struct {
	events.Base
	Order  string `json:"order"`
	Amount int    `json:"amount,omitzero"`
}

// EventName is the name on the wire.
func (*OrderEvent) EventName() string { return "OrderEvent" }

func ofOrder(topic string) sagas.Topic[OrderEvent] {
	return sagas.Correlated(topic, func(e *OrderEvent) string { return e.Order })
}

func orderEvent(o *Order) bus.Event { return &OrderEvent{Order: o.ID, Amount: o.Amount} }

// orders reserves stock, charges the customer, and confirms; what was done of it is undone when the rest cannot be.
func orders() sagas.Definition[Order] {
	return sagas.Definition[Order]{
		Name: "order",
		Start: []sagas.On[Order]{sagas.When(ofOrder("order.placed"), "reserving", func(o *Order, e *OrderEvent) error {
			o.ID, o.Amount = e.Order, e.Amount
			return nil
		})},
		States: []sagas.State[Order]{
			{
				Name: "reserving",
				Do:   sagas.Publish("stock.reserve", orderEvent),
				Undo: sagas.Publish("stock.release", orderEvent).Until(ofOrder("stock.released")),
				On: []sagas.On[Order]{
					sagas.When[Order](ofOrder("stock.reserved"), "charging", nil),
					sagas.After[Order](time.Minute, sagas.Compensating, nil),
				},
			},
			{
				Name: "charging",
				Do:   sagas.Call("payment", "charge", func(o *Order) any { return o }),
				Undo: sagas.Call("payment", "refund", func(o *Order) any { return o }),
				On: []sagas.On[Order]{
					sagas.Answered("confirmed", func(*Order, *struct{}) error { return nil }),
					sagas.Refused[Order](sagas.Compensating, nil),
				},
			},
			{Name: "confirmed", End: true, Do: sagas.Publish("order.confirmed", orderEvent)},
		},
	}
}

// payment stands for a service of the mesh.
type payment struct{}

func (payment) Call(_ context.Context, _, method, _ string, body []byte) ([]byte, error) {
	if method == "charge" && string(body) == `{"id":"o-2","amount":900}` {
		return nil, &sagas.Refusal{Status: 402, Detail: "the card has not that much"}
	}
	return nil, nil
}

// Two orders: one is confirmed, the other one cannot be paid, and its stock is released again.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	b, err := bus.New(memorybus.New(memorybus.Config{}), bus.Config{})
	if err != nil {
		panic(err)
	}
	order, err := orders().Build()
	if err != nil {
		panic(err)
	}
	engine, err := sagas.New(sagas.Config{Store: memoryevents.New(eventstore.Config{}), Bus: b, Caller: called{payment{}}, Sagas: []*sagas.Saga{order}})
	if err != nil {
		panic(err)
	}
	// The stock, which is another service.
	answer := func(topic string) func(ctx context.Context, e *OrderEvent) error {
		return func(ctx context.Context, e *OrderEvent) error {
			_, err := b.Publish(ctx, topic, &OrderEvent{Order: e.Order})
			return err
		}
	}
	if err := bus.Handle(b, "stock.reserve", "stock", answer("stock.reserved"), bus.SubscriptionOptions{}); err != nil {
		panic(err)
	}
	if err := bus.Handle(b, "stock.release", "stock", answer("stock.released"), bus.SubscriptionOptions{}); err != nil {
		panic(err)
	}
	go func() { _ = b.Run(ctx) }()
	<-b.Running()
	go func() { _ = engine.Run(ctx) }()

	for _, e := range []*OrderEvent{{Order: "o-1", Amount: 20}, {Order: "o-2", Amount: 900}} {
		if _, err := b.Publish(ctx, "order.placed", e); err != nil {
			panic(err)
		}
	}
	for _, key := range []string{"o-1", "o-2"} {
		for {
			i, err := engine.Get(ctx, "order", key)
			if err == nil && i.Status.Ended() {
				_, _ = fmt.Fprintln(os.Stdout, key, "is", i.Status)
				break
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	// Output:
	// o-1 is completed
	// o-2 is compensated
}
