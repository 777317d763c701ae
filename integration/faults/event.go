package faults

import "time"

// Worked is the event of a load.
type Worked struct {
	EventID   string    `json:"eventId"`
	Timestamp time.Time `json:"timestamp"`
	Number    int       `json:"number"`
	Text      string    `json:"text"`
}

// EventName is the type that the event travels with.
func (*Worked) EventName() string { return "WorkedEvent" }

// Stamp gives the event an id and a time.
func (e *Worked) Stamp(id string, at time.Time) (string, time.Time) {
	e.EventID, e.Timestamp = id, at
	return id, at
}
