package events_test

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/bannou-mesh/bannou/events"
)

// An event is flat: what every event has stands beside what this one has. Optional members are left out when empty.
func Example() {
	e := &events.AccountUpdatedEvent{
		AccountID:     "0198c0de-0000-7000-8000-000000000002",
		ChangedFields: []string{"displayName"},
		DisplayName:   "Ada",
	}
	// Whoever publishes the event stamps it.
	e.Stamp("0198c0de-0000-7000-8000-000000000001", time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC))

	body, _ := json.MarshalIndent(e, "", "  ")
	fmt.Println(string(body))
	// Output:
	// {
	//   "eventId": "0198c0de-0000-7000-8000-000000000001",
	//   "timestamp": "2026-01-02T15:04:05Z",
	//   "accountId": "0198c0de-0000-7000-8000-000000000002",
	//   "changedFields": [
	//     "displayName"
	//   ],
	//   "displayName": "Ada"
	// }
}

// New gives the type to decode into when only the topic is known.
func ExampleNew() {
	body := []byte(`{"eventId":"1","timestamp":"2026-01-02T15:04:05Z","storeName":"auth","key":"k","operation":"save","later":true}`)

	e, _ := events.New("state.changed")
	if err := json.Unmarshal(body, e); err != nil {
		fmt.Println(err)
	}
	if changed, ok := e.(*events.StateChangedEvent); ok {
		fmt.Println(e.EventName(), changed.StoreName, changed.Operation == events.StateChangedOperationSave)
	}
	// Output: StateChangedEvent auth true
}

// Subscriptions tell which services hear of an event.
func ExampleSubscriptions() {
	for _, s := range events.Subscriptions("auth") {
		fmt.Println(s.Handler, "handles", s.Event, "of", s.Topic)
	}
	// Output:
	// auth.update-sessions handles AccountUpdatedEvent of account.updated
	// auth.invalidate-sessions handles AccountDeletedEvent of account.deleted
}
