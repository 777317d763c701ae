// Package relay sends the events that wait in an outbox: those that the messaging service keeps while the broker is away,
// those that stores write together with their changes, those that a service adds in a transaction of its own, and those of an event store,
// whose log is an outbox by itself.
//
// A Relay empties a state.Outbox, a table. It claims some of its events for the time of a lease, hands them to the bus many at a time, deletes
// those that the broker has confirmed, and gives back what it could not send. Every event arrives at least once, whatever is killed meanwhile; a
// second arrival has the same id. Events of one key arrive in order. What a broker will never take is set aside in the
// table with the reason, and what has expired or cannot be routed goes to the dead letters. Several relays, in this process
// or in others, may send one outbox.
//
// A Log publishes a category of an eventstore.Store, by one leader among all processes. Nothing is deleted; the leader enters how far it is.
// The service says what is published of an event, by a function:
//
//	r, err := relay.NewLog(relay.LogConfig{Store: log, Bus: b, Name: "orders", Category: "order",
//		Messages: func(_ context.Context, e eventstore.Recorded) ([]relay.Message, error) {
//			if e.Type != "placed" {
//				return nil, nil // nobody else's business
//			}
//			return []relay.Message{{Topic: "order.placed", Type: "OrderPlacedEvent", Body: e.Data}}, nil
//		}})
//
// It is a service of a host, or is started and stopped by hand. Who does not want the bus's form of events uses what it is made of: a
// subscription with eventstore.SubscriptionConfig.Begin.
//
// Package inbox is the other end: it has a handler's effect once, however often an event arrives.
package relay
