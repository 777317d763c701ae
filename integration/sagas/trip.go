package sagas

import (
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/sagas"
)

// A Trip is the data of the saga.
type Trip struct {
	ID   string `json:"id"`
	Full bool   `json:"full,omitzero"` // no car is to be had: the trip is compensated
}

// Ask is what the events of a trip are.
type Ask struct {
	events.Base
	Trip string `json:"trip"`
	Full bool   `json:"full,omitzero"`
}

// EventName is the name on the wire.
func (*Ask) EventName() string { return "TripAskEvent" }

// Definition is a saga of three steps that are commands in all ways there are: a seat by events, whose undo is confirmed by an event; a room
// by calls; a car by events, whose undo is not confirmed. Its topics begin with the prefix.
func Definition(prefix string) sagas.Definition[Trip] {
	on := func(topic string) sagas.Topic[Ask] {
		return sagas.Correlated(prefix+topic, func(e *Ask) string { return e.Trip })
	}
	says := func(t *Trip) bus.Event { return &Ask{Trip: t.ID, Full: t.Full} }
	publish := func(topic string) sagas.Command[Trip] { return sagas.Publish(prefix+topic, says) }
	call := func(method string) sagas.Command[Trip] {
		return sagas.Call("hotel", method, func(t *Trip) any { return t })
	}
	return sagas.Definition[Trip]{
		Name: "trip", Policies: sagas.Policies{Unknown: sagas.Ignore}, Retry: sagas.Retry{Attempts: 20, Pause: 100 * time.Millisecond, Timeout: 5 * time.Second},
		Start: []sagas.On[Trip]{sagas.When(on("trip.asked"), "seat", func(t *Trip, e *Ask) error {
			t.ID, t.Full = e.Trip, e.Full
			return nil
		})},
		States: []sagas.State[Trip]{
			{
				Name: "seat", Do: publish("seat.book"), Undo: publish("seat.free").Until(on("seat.freed")),
				On: []sagas.On[Trip]{sagas.When[Trip](on("seat.booked"), "room", nil), sagas.After[Trip](time.Minute, sagas.Compensating, nil)},
			},
			{
				Name: "room", Do: call("book"), Undo: call("free"),
				On: []sagas.On[Trip]{sagas.Answered[Trip, struct{}]("car", nil), sagas.Refused[Trip](sagas.Compensating, nil)},
			},
			{
				Name: "car", Do: publish("car.book"), Undo: publish("car.free"),
				On: []sagas.On[Trip]{
					sagas.When[Trip](on("car.booked"), "booked", nil), sagas.When[Trip](on("car.refused"), sagas.Compensating, nil),
					sagas.After[Trip](time.Minute, sagas.Compensating, nil),
				},
			},
			{Name: "booked", End: true, Do: publish("trip.booked")},
		},
	}
}
